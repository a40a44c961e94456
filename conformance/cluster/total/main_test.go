package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// What is found in any run shows in the sum and in its verdict.
func TestSum(t *testing.T) {
	dir := t.TempDir()
	put := func(name, text string) {
		if err := os.MkdirAll(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name, "report.json"), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	sum := func() (string, bool) {
		var b strings.Builder
		sound, err := run(&b, []string{dir})
		if err != nil {
			t.Fatal(err)
		}
		return b.String(), sound
	}
	put("1", `{"Seed":1,"Harmed":300000000000,"Faulty":100000000000,"Acks":10,"Groups":{"Acked":3},"Faults":[{"Nemesis":"kill-owner","From":0,"To":2000000000,"Stall":4000000}]}`)
	put("2", `{"Seed":2,"Harmed":60000000000,"Acks":5,"Faults":[{"Nemesis":"kill-owner","From":0,"To":1000000000,"Stall":7000000}]}`)
	text, sound := sum()
	if !sound || !strings.Contains(text, "| 2 runs | 360 s | 100 s | 2 | 15 | 3 | | 0 |") || !strings.Contains(text, "| kill-owner | 2 | 3 s | 7 ms, 2 |") {
		t.Fatalf("sound %v:\n%s", sound, text)
	}
	for _, bad := range []string{`"Anomalies":["lost"]`, `"GivenUp":["one"]`, `"Cut":"no bookie"`} {
		put("2", `{"Seed":2,`+bad+`}`)
		if text, sound := sum(); sound || !strings.Contains(text, "- seed 2: ") {
			t.Errorf("%s is not told:\n%s", bad, text)
		}
	}
	if _, err := run(&strings.Builder{}, []string{t.TempDir()}); err == nil {
		t.Error("no report at all is no error")
	}
}
