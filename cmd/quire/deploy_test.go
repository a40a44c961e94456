package main

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"
)

func deployed(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, "deploy", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// A composeService is what is checked of a service of deploy/compose.yaml.
type composeService struct {
	Image, Restart, Hostname string
	Entrypoint, Command      []string
	Volumes                  []string
	Ports                    []string
	DependsOn                yaml.Node `yaml:"depends_on"`
	Environment              map[string]string
	StopGracePeriod          string `yaml:"stop_grace_period"`
}

func TestCompose(t *testing.T) {
	var compose struct {
		XEtcd    yaml.Node `yaml:"x-etcd"`
		XBook    yaml.Node `yaml:"x-bookkeeper"`
		XBookie  yaml.Node `yaml:"x-bookie"`
		XQuire   yaml.Node `yaml:"x-quire"`
		Services map[string]composeService
		Volumes  map[string]struct{}
	}
	decoder := yaml.NewDecoder(strings.NewReader(deployed(t, "compose.yaml")))
	decoder.KnownFields(true)
	if err := decoder.Decode(&compose); err != nil {
		t.Fatal(err)
	}
	module, err := os.ReadFile(filepath.Join(root, "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	kinds := map[string]int{}
	for name, s := range compose.Services {
		kind := strings.TrimRight(name, "-0123456789")
		kinds[kind]++
		if _, tag, ok := strings.Cut(s.Image, ":"); !ok || tag == "latest" {
			t.Errorf("%s: image %q has no version", name, s.Image)
		}
		if s.Restart == "" {
			t.Errorf("%s: nothing starts it again", name)
		}
		for _, volume := range s.Volumes {
			from, to, _ := strings.Cut(volume, ":")
			if strings.HasPrefix(from, ".") {
				if _, err := os.Stat(filepath.Join(root, "deploy", from)); err != nil && !strings.HasPrefix(from, "../bin/") {
					t.Errorf("%s: %v", name, err)
				}
			} else if _, declared := compose.Volumes[from]; !declared {
				t.Errorf("%s: volume %q is not declared", name, from)
			}
			if !strings.HasPrefix(to, "/") {
				t.Errorf("%s: %q names no place", name, volume)
			}
		}
		var needed []string
		if err := s.DependsOn.Decode(&needed); err != nil {
			var conditions map[string]struct{ Condition string }
			if err := s.DependsOn.Decode(&conditions); err != nil && !s.DependsOn.IsZero() {
				t.Errorf("%s: depends_on: %v", name, err)
			}
			for other := range conditions {
				needed = append(needed, other)
			}
		}
		for _, other := range needed {
			if _, ok := compose.Services[other]; !ok {
				t.Errorf("%s depends on %s, which is no service", name, other)
			}
		}
		line := strings.Join(append(s.Entrypoint, s.Command...), " ")
		switch kind {
		case "etcd":
			_, version, _ := strings.Cut(s.Image, ":")
			if !bytes.Contains(module, []byte("go.etcd.io/etcd/server/v3 "+version+"\n")) {
				t.Errorf("%s: %s is not the version that Quire embeds", name, version)
			}
			for _, want := range []string{"--name=" + name + " ", "--max-txn-ops=1024", "//" + name + ":2379", "//" + name + ":2380"} {
				if !strings.Contains(line, want) {
					t.Errorf("%s: no %q in %s", name, want, line)
				}
			}
		case "bookie":
			if s.Hostname != name || !strings.Contains(line, "bookkeeper-watch registered") {
				t.Errorf("%s: host name %s, runs %s", name, s.Hostname, line)
			}
		case "quire":
			if want := "--node.name=" + name + " --peer.listen=:9191 --peer.advertised=" + name + ":9191 "; s.Hostname != name || !strings.Contains(line, want) {
				t.Errorf("%s: host name %s, runs %s", name, s.Hostname, line)
			}
			_, flags, _ := strings.Cut(line, " serve ")
			flags = strings.ReplaceAll(flags, "/etc/quire/quire.yaml", filepath.Join(root, "deploy", "quire-bookkeeper.yaml"))
			if status, out := execute(t, append([]string{"config", "check"}, strings.Fields(flags)...)...); status != 0 {
				t.Errorf("%s: its flags are refused: %s", name, out)
			}
		case "autorecovery":
			if !strings.Contains(line, "bookkeeper-watch connected") {
				t.Errorf("%s runs %s", name, line)
			}
		}
	}
	if kinds["etcd"] != 3 || kinds["bookie"] < 4 || kinds["quire"] < 3 || kinds["autorecovery"] != 1 {
		t.Errorf("services are %v", kinds)
	}
}

func TestExampleConfigOnBookies(t *testing.T) {
	c, err := loadConfig(filepath.Join(root, "deploy", "quire-bookkeeper.yaml"), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	if tier, endpoints := c.str("storage.tier"), bookiesAt(c).etcd; tier != tierBookKeeper || len(endpoints) != 3 {
		t.Errorf("tier %s, endpoints %v", tier, endpoints)
	}
}

// unit reads a systemd unit: sections, and lines of known forms. A key may come
// more than once.
func unit(t *testing.T, name string) map[string][]string {
	t.Helper()
	section := ""
	values := map[string][]string{}
	for i, line := range strings.Split(deployed(t, name), "\n") {
		line = strings.TrimSpace(line)
		switch {
		case line == "" || strings.HasPrefix(line, "#"):
		case strings.HasPrefix(line, "[") && strings.HasSuffix(line, "]"):
			section = strings.Trim(line, "[]")
		default:
			k, v, ok := strings.Cut(line, "=")
			if !ok || section == "" || k == "" || strings.TrimSpace(k) != k || v == "" {
				t.Errorf("%s line %d: %q", name, i+1, line)
			}
			values[section+"."+k] = append(values[section+"."+k], v)
		}
	}
	return values
}

// What runs beside Quire is started again whatever it ends with: Pulsar's etcd
// driver does not come back from all that it survives.
func TestUnitsBesideQuire(t *testing.T) {
	for name, command := range map[string]string{
		"etcd.service":                    "--max-txn-ops=1024",
		"bookie.service":                  "bookkeeper-watch registered ${ETCD} %l:3181 ",
		"bookkeeper-autorecovery.service": "bookkeeper-watch connected ${ETCD} ",
	} {
		values := unit(t, name)
		for k, want := range map[string]string{"Service.Restart": "always", "Service.RestartSec": "2", "Install.WantedBy": "multi-user.target"} {
			if got := strings.Join(values[k], " "); got != want {
				t.Errorf("%s: %s is %q, want %q", name, k, got, want)
			}
		}
		if got := strings.Join(values["Service.ExecStart"], " "); !strings.Contains(got, command) {
			t.Errorf("%s: ExecStart is %q, want %q in it", name, got, command)
		}
	}
}

// systemd's own reading of the units, where it is there. What it says of programs
// that are not installed on this machine does not count.
func TestUnitsBySystemd(t *testing.T) {
	units, err := filepath.Glob(filepath.Join(root, "deploy", "*.service"))
	if err != nil || len(units) < 4 {
		t.Fatalf("units are %v, %v", units, err)
	}
	analyze, err := exec.LookPath("systemd-analyze")
	if errors.Is(err, exec.ErrNotFound) {
		return
	}
	missing := regexp.MustCompile(`Command \S+ is not executable: No such file or directory`)
	for _, u := range units {
		out, _ := exec.Command(analyze, "verify", u).CombinedOutput()
		for line := range strings.Lines(string(out)) {
			if !missing.MatchString(line) && strings.Contains(line, filepath.Base(u)) {
				t.Errorf("systemd-analyze: %s", line)
			}
		}
	}
}

// TestBookieConf: one value for a key, the limits that Quire takes for granted, and
// the ports that the other files name.
func TestBookieConf(t *testing.T) {
	values := map[string]string{}
	for i, line := range strings.Split(strings.TrimSpace(deployed(t, "bookie.conf")), "\n") {
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		k, v, ok := strings.Cut(line, "=")
		if _, twice := values[k]; !ok || v == "" || twice || strings.TrimSpace(k) != k {
			t.Errorf("line %d: %q", i+1, line)
		}
		values[k] = v
	}
	for k, want := range map[string]string{
		"journalSyncData": "true", "journalWriteData": "true", "bookiePort": "3181", "autoRecoveryDaemonEnabled": "false",
		"useHostNameAsBookieID": "true", "useShortHostName": "true", "nettyMaxFrameSizeBytes": "5253120",
	} {
		if values[k] != want {
			t.Errorf("%s is %q, want %q", k, values[k], want)
		}
	}
	if !strings.HasPrefix(values["metadataServiceUri"], "metadata-store:etcd:http://") {
		t.Errorf("metadataServiceUri is %s", values["metadataServiceUri"])
	}
}

// Scripts run as what they are: a shell takes them.
func TestScripts(t *testing.T) {
	for _, name := range []string{"bookkeeper-watch", "rolling-restart"} {
		path := filepath.Join(root, "deploy", name)
		info, err := os.Stat(path)
		if err != nil || info.Mode()&fs.ModePerm&0o111 == 0 {
			t.Fatalf("%s: mode %v, error %v", path, info, err)
		}
		if out, err := exec.Command("sh", "-n", path).CombinedOutput(); err != nil {
			t.Errorf("sh -n %s: %v\n%s", name, err, out)
		}
	}
}

// Each configuration of HAProxy has its other half, which is one that quire takes and
// that means the same ports; and HAProxy is the last to give up a silent connection.
func TestHAProxyHalves(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(root, "deploy", "haproxy", "*.cfg"))
	if err != nil || len(files) < 4 {
		t.Fatalf("configurations are %v, %v", files, err)
	}
	readme := deployed(t, "haproxy/README.md")
	for _, file := range files {
		name := filepath.Base(file)
		cfg := deployed(t, "haproxy/"+name)
		half := strings.TrimSuffix(name, ".cfg") + ".yaml"
		if !strings.Contains(readme, "`"+name+"`") || !strings.Contains(cfg, half) {
			t.Errorf("%s: the README or the file itself does not tell of it and %s", name, half)
		}
		c, err := loadConfig(filepath.Join(root, "deploy", "haproxy", half), nil, nil)
		if err != nil {
			t.Error(err)
			continue
		}
		listeners, err := parseListeners(c.str("listeners"))
		if err != nil {
			t.Fatal(err)
		}
		ports := map[string]bool{}
		for _, l := range listeners {
			p, err := proxyProtocol(c, l.Name)
			if err != nil {
				t.Fatal(err)
			}
			if p != nil {
				ports[strconv.Itoa(l.Port)] = true
				if len(p.Trusted) != 1 || p.Trusted[0].String() != "10.0.0.10/32" {
					t.Errorf("%s trusts %v", half, p.Trusted)
				}
			}
		}
		servers := regexp.MustCompile(`(?m)^    server quire-(\d) 10\.0\.0\.1(\d):(\d+)`).FindAllStringSubmatch(cfg, -1)
		for _, m := range servers {
			if m[1] != m[2] || !ports[m[3]] {
				t.Errorf("%s: %q is no address of the listeners %s behind HAProxy", name, m[0], c.str("listener.proxy.protocol"))
			}
		}
		if len(servers) < 3 || !regexp.MustCompile(`(?m)^    default-server .*\bsend-proxy-v2\b`).MatchString(cfg) {
			t.Errorf("%s: %d servers, or not with send-proxy-v2", name, len(servers))
		}
		for word, key := range map[string]string{"agent-port ": "agent.listen", "check port ": "admin.listen"} {
			if _, rest, ok := strings.Cut(cfg, word); ok {
				port := strings.Fields(rest)[0]
				if _, got, _ := strings.Cut(c.str(key), ":"); got != port {
					t.Errorf("%s asks port %s, %s has %s=%s", name, port, half, key, c.str(key))
				}
			}
		}
		for _, side := range []string{"client", "server"} {
			m := regexp.MustCompile(`(?m)^    timeout ` + side + ` (\d+)m$`).FindStringSubmatch(cfg)
			if m == nil {
				t.Fatalf("%s: no timeout %s in minutes", name, side)
			}
			if minutes, err := strconv.Atoi(m[1]); err != nil || time.Duration(minutes)*time.Minute <= c.millis("connections.max.idle.ms") {
				t.Errorf("%s: timeout %s %sm is not longer than connections.max.idle.ms", name, side, m[1])
			}
		}
	}
}
