package main

import (
	"bytes"
	"context"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// execute runs one command line in this process, without the environment, and
// returns the exit status and all that it printed.
func execute(t *testing.T, args ...string) (int, string) {
	t.Helper()
	var out bytes.Buffer
	p := &process{ctx: context.Background(), stdin: strings.NewReader(""), stdout: &out, stderr: &out}
	status := run(p, args)
	return status, out.String()
}

// TestCommandLine: a mistake is one line that names it, with a hint where one is near.
func TestCommandLine(t *testing.T) {
	for _, c := range []struct {
		args   string
		status int
		want   string
	}{
		{"serve --lisners x", 1, `unknown flag --lisners, did you mean "--listeners"?`},
		{"srve", 1, `did you mean "serve"?`},
		{"serve --override num.partitions", 1, "--override num.partitions: expected KEY=VALUE"},
		{"serve --override num.partitons=1", 1, "--override: unknown key num.partitons: did you mean num.partitions?"},
		{"serve --listeners 9092", 1, `--listeners: listeners "9092" is not NAME://host:port`},
		{"serve --config absent.yaml", 1, "config file absent.yaml cannot be read: no such file"},
		{"topic alter t", 1, "nothing to alter"},
		{"topic list -b 127.0.0.1:1", 1, "no server at 127.0.0.1:1: "},
		{"consume t --offset yesterday", 1, "--offset yesterday: expected"},
		{"consume t --format %Q", 1, "--format: "},
		{"config check", 0, "configuration is valid (no file)"},
		{"config check --num.partitions=3 --broker.rack r", 0, "configuration is valid (no file)"},
		{"serve --num.partitons=3", 1, "quire: --num.partitons: unknown key num.partitons: did you mean num.partitions?"},
		{"config print --storage.teir x", 1, "quire: --storage.teir: unknown key storage.teir: did you mean storage.tier?"},
		{"config print --num.partitions=x", 1, "quire: --num.partitions: num.partitions "},
		{"config print --effective --num.partitions 3", 0, "num.partitions: 3  # --num.partitions"},
		{"ledger list --storage.teir=x", 1, "quire: --storage.teir: unknown key storage.teir: did you mean storage.tier?"},
		{"topic list --num.partitions=3", 1, "unknown flag --num.partitions: this command reads no configuration"},
		{"topic list --override num.partitions=3", 1, "unknown flag --override"},
		{"serve --num.partitions", 1, "num.partitions"},
		{"version", 0, "quire "},
		{"--version", 0, "quire "},
		{"", 0, "Usage: quire <command>"},
		{"serve --help", 0, "--override=KEY=VALUE"},
	} {
		status, out := execute(t, strings.Fields(c.args)...)
		if status != c.status || !strings.Contains(out, c.want) {
			t.Errorf("quire %s: status %d, %q; want %d, %q", c.args, status, out, c.status, c.want)
		}
		if c.status != 0 && strings.Count(out, "\n") != 1 {
			t.Errorf("quire %s: an error of several lines: %q", c.args, out)
		}
	}
}

// TestSilentAdmin: a process that is stopped takes connections and answers nothing.
func TestSilentAdmin(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	for _, args := range []string{
		"node list", "node describe", "node drain 1", "node undrain 1", "node move-slot 1",
		"node upgrade-level", "topic migrate t",
	} {
		var out bytes.Buffer
		p := &process{ctx: t.Context(), stdin: strings.NewReader(""), stdout: &out, stderr: &out, patience: 10 * time.Millisecond}
		status := run(p, append(strings.Fields(args), "--admin", ln.Addr().String()))
		want := "the admin listener at " + ln.Addr().String() + " does not answer: nothing comes for 10ms"
		if status != 1 || !strings.Contains(out.String(), want) || strings.Count(out.String(), "\n") != 1 {
			t.Errorf("quire %s: status %d, %q; want %q", args, status, out.String(), want)
		}
	}
}

func TestCommasStayInOverrides(t *testing.T) {
	status, out := execute(t, "config", "print", "--effective", "--override", "listeners=PLAINTEXT://:1,UNIX:///x", "--override", "num.partitions=3")
	if status != 0 || !strings.Contains(out, "listeners: PLAINTEXT://:1,UNIX:///x  # --override") || !strings.Contains(out, "num.partitions: 3  # --override") {
		t.Errorf("status %d: %s", status, out)
	}
}

func TestParsePosition(t *testing.T) {
	for s, want := range map[string]position{
		"earliest":                  {special: earliest, time: -1},
		"latest":                    {special: latest, time: -1},
		"0":                         {time: -1},
		"17":                        {offset: 17, time: -1},
		"-5":                        {offset: -5, time: -1},
		"@1500":                     {time: 1500},
		"1970-01-01T00:00:01Z":      {time: 1000},
		"1970-01-01T01:00:01+01:00": {time: 1000},
	} {
		got, err := parsePosition(s)
		if err != nil || got != want {
			t.Errorf("%s: %+v, %v; want %+v", s, got, err, want)
		}
	}
	for _, s := range []string{"", "tomorrow", "@", "@-1", "1.5", "2026-13-01T00:00:00Z"} {
		if _, err := parsePosition(s); err == nil {
			t.Errorf("%q is accepted", s)
		}
	}
}

// TestClientVersion: KIP-511 closes connections whose software version has other characters.
func TestClientVersion(t *testing.T) {
	if v := clientVersion(); strings.Trim(v, "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-") != "" || v == "" {
		t.Errorf("%q", v)
	}
	f := clientFlags{BootstrapServer: []string{"127.0.0.1:1"}}
	client, err := f.open(kgo.ManualFlushing())
	if err != nil {
		t.Fatal(err)
	}
	client.Close()
}
