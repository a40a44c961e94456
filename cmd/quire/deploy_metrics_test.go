package main

import (
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// metricName is how the code names a metric: the first string literal of a
// metric's options or of NewDesc that begins so. Nothing else in the code has such a literal.
var (
	metricName = regexp.MustCompile(`"(quire_[a-z0-9_]+)"`)
	metricWord = regexp.MustCompile(`\bquire_[a-z0-9_]+\b`)
	series     = regexp.MustCompile(`_(bucket|sum|count)$`)
)

// ourMetrics are the metrics that the code makes.
func ourMetrics(t *testing.T) map[string]bool {
	t.Helper()
	found := map[string]bool{}
	eachGoFile(t, func(file string) {
		if strings.HasSuffix(file, "_test.go") {
			return
		}
		text, err := os.ReadFile(filepath.Join(root, file))
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range metricName.FindAllStringSubmatch(string(text), -1) {
			found[m[1]] = true
		}
	})
	if len(found) < 40 {
		t.Fatalf("found only %d metrics in the code: %v", len(found), slices.Sorted(maps.Keys(found)))
	}
	return found
}

// The guide, the dashboard and the alerts name metrics that exist, and the guide all of them.
func TestDeployedMetrics(t *testing.T) {
	ours := ourMetrics(t)
	for _, file := range []string{"OPERATIONS.md", "grafana-dashboard.json", "prometheus-rules.yaml"} {
		for _, word := range metricWord.FindAllString(deployed(t, file), -1) {
			if !ours[word] && !ours[series.ReplaceAllString(word, "")] {
				t.Errorf("deploy/%s names the metric %s, which does not exist", file, word)
			}
		}
	}
	guide := deployed(t, "OPERATIONS.md")
	for name := range ours {
		if !strings.Contains(guide, "`"+name+"`") {
			t.Errorf("deploy/OPERATIONS.md does not explain %s", name)
		}
	}
}

func TestDashboard(t *testing.T) {
	var dashboard struct {
		Title  string
		Panels []struct {
			ID      int
			Title   string
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal([]byte(deployed(t, "grafana-dashboard.json")), &dashboard); err != nil {
		t.Fatal(err)
	}
	seen := map[int]bool{}
	for _, p := range dashboard.Panels {
		if seen[p.ID] || p.Title == "" || len(p.Targets) == 0 {
			t.Errorf("panel %d %q: ids must differ, and each needs a title and a query", p.ID, p.Title)
		}
		seen[p.ID] = true
		for _, target := range p.Targets {
			if !balanced(target.Expr) {
				t.Errorf("panel %q: %s", p.Title, target.Expr)
			}
		}
	}
	if len(seen) == 0 {
		t.Error("no panels")
	}
}

func TestAlertRules(t *testing.T) {
	var rules struct {
		Groups []struct {
			Name  string
			Rules []struct {
				Alert, Expr, For string
				Labels           map[string]string
				Annotations      map[string]string
			}
		}
	}
	decoder := yaml.NewDecoder(strings.NewReader(deployed(t, "prometheus-rules.yaml")))
	decoder.KnownFields(true)
	if err := decoder.Decode(&rules); err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, g := range rules.Groups {
		for _, r := range g.Rules {
			if seen[r.Alert] || r.Alert == "" || !balanced(r.Expr) {
				t.Errorf("alert %q: %s", r.Alert, r.Expr)
			}
			seen[r.Alert] = true
			if s := r.Labels["severity"]; s != "page" && s != "ticket" {
				t.Errorf("alert %s: severity %q", r.Alert, s)
			}
			if r.Annotations["summary"] == "" || r.Annotations["description"] == "" {
				t.Errorf("alert %s does not say what is the matter and what to do", r.Alert)
			}
		}
	}
	if len(seen) == 0 {
		t.Error("no alerts")
	}
}

// balanced says whether the brackets and quotes of a query match.
func balanced(query string) bool {
	var open []rune
	quoted := false
	for _, c := range query {
		switch {
		case c == '"':
			quoted = !quoted
		case quoted:
		case strings.ContainsRune("([{", c):
			open = append(open, c)
		case strings.ContainsRune(")]}", c):
			if len(open) == 0 || !strings.Contains("()[]{}", string(open[len(open)-1])+string(c)) {
				return false
			}
			open = open[:len(open)-1]
		}
	}
	return query != "" && !quoted && len(open) == 0
}
