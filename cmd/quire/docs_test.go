package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/quirelog/quire/proxy/api"
)

var update = flag.Bool("update", false, "rewrite what tests hold the README to")

// TestReadmeAPIs holds the README's table to what the handlers accept.
func TestReadmeAPIs(t *testing.T) {
	table := "| key | API | versions |\n|---|---|---|\n"
	h := api.New(api.Config{})
	defer h.Close()
	for key := range int16(128) {
		lo, hi := int16(-1), int16(-1)
		for v := range int16(64) {
			if h.Accepts(key, v) {
				if lo < 0 {
					lo = v
				}
				hi = v
			}
		}
		if lo >= 0 {
			table += fmt.Sprintf("| %d | %s | %d–%d |\n", key, kmsg.NameForKey(key), lo, hi)
		}
	}
	file := filepath.Join(root, "README.md")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	const begin, end = "<!-- apis:begin -->\n", "<!-- apis:end -->"
	head, rest, ok := strings.Cut(string(text), begin)
	got, tail, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		t.Fatal("README.md has no place for the table of APIs")
	}
	if got == table {
		return
	}
	if !*update {
		t.Fatalf("README.md lists other APIs than are served; -update puts it right:\n%s", table)
	}
	if err := os.WriteFile(file, []byte(head+begin+table+end+tail), 0o644); err != nil {
		t.Fatal(err)
	}
}

// TestReadmeKeys: every configuration key that the README names exists.
func TestReadmeKeys(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(root, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, m := range regexp.MustCompile(`--override ([a-z.]+)=|QUIRE_([A-Z_]+)=`).FindAllStringSubmatch(string(text), -1) {
		name := m[1]
		if m[2] != "" {
			name = strings.ReplaceAll(strings.ToLower(m[2]), "_", ".")
		}
		if catalogByName[name] == nil {
			t.Errorf("README.md names the key %s, which does not exist", name)
		}
		found++
	}
	if found == 0 {
		t.Error("README.md shows no key")
	}
}

// TestReadmeTargets: every make target that the documents name exists and has its line of help.
func TestReadmeTargets(t *testing.T) {
	makefile, err := os.ReadFile(filepath.Join(root, "Makefile"))
	if err != nil {
		t.Fatal(err)
	}
	targets := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^([a-z]+):[^=\n]* ## \S`).FindAllStringSubmatch(string(makefile), -1) {
		targets[m[1]] = true
	}
	for _, name := range strings.Fields("help run build test race fuzz lint conformance bench") {
		if !targets[name] {
			t.Errorf("Makefile has no explained target %s", name)
		}
	}
	for _, file := range []string{"README.md", "CONTRIBUTING.md", ".ci/run"} {
		text, err := os.ReadFile(filepath.Join(root, file))
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile("(?m)(?:^(?: {4}|run )|`)make ([a-z ]+[a-z])").FindAllStringSubmatch(string(text), -1) {
			for _, name := range strings.Fields(m[1]) {
				if !targets[name] {
					t.Errorf("%s names the make target %s, which does not exist", file, name)
				}
			}
		}
	}
}

// TestContributingFiles: the files that a newcomer is sent to are there.
func TestContributingFiles(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(root, "CONTRIBUTING.md"))
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, m := range regexp.MustCompile("`([a-z_]+/[A-Za-z0-9_/]+\\.(?:go|md))`").FindAllStringSubmatch(string(text), -1) {
		if _, err := os.Stat(filepath.Join(root, m[1])); err != nil {
			t.Error(err)
		}
		found++
	}
	if found < 5 {
		t.Errorf("only %d files are named", found)
	}
}

func TestExampleConfig(t *testing.T) {
	c, err := loadConfig(filepath.Join(root, "deploy", "quire.yaml"), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := c.topicDefaults(); err != nil || got["retention.bytes"] != "107374182400" {
		t.Errorf("defaults of topics are %v, %v", got, err)
	}
}

// TestUnit reads the systemd unit: sections, known forms of lines, and that its
// command line is one that this program takes.
func TestUnit(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(root, "deploy", "quire.service"))
	if err != nil {
		t.Fatal(err)
	}
	section := ""
	values := map[string]string{}
	for i, line := range strings.Split(string(text), "\n") {
		line = strings.TrimSpace(line)
		switch {
		case line == "" || strings.HasPrefix(line, "#"):
		case strings.HasPrefix(line, "[") && strings.HasSuffix(line, "]"):
			section = strings.Trim(line, "[]")
		default:
			k, v, ok := strings.Cut(line, "=")
			if !ok || section == "" || k == "" || strings.TrimSpace(k) != k || v == "" {
				t.Errorf("line %d: %q", i+1, line)
			}
			values[section+"."+k] = v
		}
	}
	for _, k := range []string{"Unit.Description", "Service.ExecStart", "Service.StateDirectory", "Install.WantedBy"} {
		if values[k] == "" {
			t.Errorf("%s is missing", k)
		}
	}
	args := strings.Fields(values["Service.ExecStart"])
	if len(args) < 2 || args[1] != "serve" {
		t.Fatalf("ExecStart is %q", args)
	}
	// The same flags, on the example in this tree, with the verb that only checks.
	flags := strings.ReplaceAll(strings.Join(args[2:], " "), "/etc/quire/quire.yaml", filepath.Join(root, "deploy", "quire.yaml"))
	if status, out := execute(t, append([]string{"config", "check"}, strings.Fields(flags)...)...); status != 0 {
		t.Errorf("ExecStart's flags are refused: %s", out)
	}
}
