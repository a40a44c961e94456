package main

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/quirelog/quire/conformance/peer"
)

func TestRowsAreValid(t *testing.T) {
	if err := validate(rows()); err != nil {
		t.Error(err)
	}
	short := 0
	for _, r := range rows() {
		if r.CI {
			short++
		}
	}
	if short > 12 {
		t.Errorf("the short set has %d rows: CI has time for 12", short)
	}
}

// The documents say what the results say, and nobody edits them.
func TestTablesAreOfTheResults(t *testing.T) {
	root, err := peer.ModuleRoot()
	if err != nil {
		t.Fatal(err)
	}
	read := func(name string) string {
		b, err := os.ReadFile(filepath.Join(root, name))
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	text := read(resultsFile)
	r, err := parseResults(text)
	if err != nil {
		t.Fatal(err)
	}
	if r.String() != text {
		t.Errorf("%s: written again it is another text: go run ./zoo -update", resultsFile)
	}
	if read(resultsTable) != resultsDocument(rows(), r) {
		t.Errorf("%s is not what %s gives: go run ./zoo -tables", resultsTable, resultsFile)
	}
	differences, err := readDifferences(root)
	if err != nil {
		t.Fatal(err)
	}
	if read(compatibilityFile) != compatibilityDocument(rows(), r, differences) {
		t.Errorf("%s is not what %s and %s give: go run ./zoo -tables", compatibilityFile, resultsFile, differencesFile)
	}
	for _, row := range rows() {
		if len(r.checks[row.Name]) == 0 {
			t.Errorf("%s knows nothing of row %s: go run ./zoo -full -update", resultsFile, row.Name)
		}
	}
	for row := range r.checks {
		if !slices.ContainsFunc(rows(), func(r Row) bool { return r.Name == row }) {
			t.Errorf("%s: row %s does not exist", resultsFile, row)
		}
	}
}

// asRead is what a program prints of the canonical records.
func asRead(headers bool) []record {
	var all []record
	for i := range canonicalCount {
		key, value := canonical(i)
		at := int64(canonicalTime + 1000*i)
		r := record{Topic: "t", Key: hexOf(key), Value: hexOf(value), Timestamp: &at}
		if headers {
			r.Headers = &[]*header{}
			if i%3 == 0 {
				r.Headers = &[]*header{{"h", hexOf(fmt.Appendf(nil, "x%d", i))}, {"n", nil}}
			}
		}
		all = append(all, r)
	}
	return all
}

func hexOf(b []byte) *string {
	if b == nil {
		return nil
	}
	s := hex.EncodeToString(b)
	return &s
}

func TestCompare(t *testing.T) {
	full := Row{Headers: true, Timestamps: true, Nulls: true}
	plain := Row{}
	wrong := int64(-1)
	x := "78"
	for _, c := range []struct {
		name               string
		producer, consumer Row
		headers            bool
		damage             func([]record) []record
		want               string // part of the difference, "" for none
	}{
		{"equal", full, full, true, nil, ""},
		{"nothing read", full, full, true, func([]record) []record { return nil }, "0 records"},
		{"one twice", full, full, true, func(r []record) []record { return append(r, r[0]) }, "31 records"},
		{"other order", full, full, true, func(r []record) []record { r[1], r[2] = r[2], r[1]; return r }, "record 1: key"},
		{"other key", full, full, true, func(r []record) []record { r[4].Key = &x; return r }, "record 4: key"},
		{"other value", full, full, true, func(r []record) []record { r[4].Value = &x; return r }, "record 4: value"},
		{"empty for null", full, full, true, func(r []record) []record { r[5].Value = new(string); return r }, "record 5: value"},
		{"null for empty", full, full, true, func(r []record) []record { r[8].Value = nil; return r }, "record 8: value"},
		{"empty for null, consumer without", full, Row{Headers: true, Timestamps: true}, true, func(r []record) []record { r[5].Value = new(string); return r }, ""},
		{"other value, nothing told apart", plain, plain, false, func(r []record) []record { r[5].Value = &x; return r }, "record 5: value"},
		{"other time", full, full, true, func(r []record) []record { r[4].Timestamp = &wrong; return r }, "record 4: timestamp"},
		{"no time", full, full, true, func(r []record) []record { r[4].Timestamp = nil; return r }, "record 4: timestamp"},
		{"other time, producer without", Row{Nulls: true}, Row{Nulls: true, Timestamps: true}, false, func(r []record) []record { r[4].Timestamp = &wrong; return r }, ""},
		{"no headers", full, full, false, nil, "record 0: headers"},
		{"no headers, consumer without", full, Row{Timestamps: true, Nulls: true}, false, nil, ""},
		{"headers, producer without", Row{Nulls: true}, Row{Nulls: true, Headers: true}, true, nil, "record 0: headers"},
		{"other header", full, full, true, func(r []record) []record { (*r[3].Headers)[0].Value = &x; return r }, "record 3: headers h"},
		{"other header name", full, full, true, func(r []record) []record { (*r[3].Headers)[1].Name = "m"; return r }, "record 3: headers"},
	} {
		records := asRead(c.headers)
		if c.damage != nil {
			records = c.damage(records)
		}
		got := compare(c.producer, c.consumer, records)
		if (got == "") != (c.want == "") || !strings.Contains(got, c.want) {
			t.Errorf("%s: got %q, want %q", c.name, got, c.want)
		}
	}
}

func TestParseLine(t *testing.T) {
	for _, c := range []struct{ line, want string }{
		{`{"check":"group","ok":true}`, "check group true "},
		{`{"check":"group","ok":false,"error":"a\n b"}`, "check group false a b"},
		{`{"topic":"t","k":null,"v":"00ff","t":5,"h":[["n",null]]}`, "record t 00ff 1"},
		{`{"topic":"t","k":"","v":null,"t":null,"h":null}`, "record t null 0"},
		{"a library's chatter", "nothing"},
		{"", "nothing"},
		{`{"check":"Group All","ok":true}`, "error"},
		{`{"neither":1}`, "error"},
		{`{"topic":"t","h":[["n"]]}`, "error"},
		{`{"topic":"t","h":[[null,null]]}`, "error"},
		{`{"topic":`, "error"},
	} {
		ch, r, err := parseLine([]byte(c.line))
		got := "nothing"
		switch {
		case err != nil:
			got = "error"
		case ch != nil:
			got = fmt.Sprintf("check %s %t %s", ch.Name, ch.OK, ch.Error)
		case r != nil:
			value, headers := "null", 0
			if r.Value != nil {
				value = *r.Value
			}
			if r.Headers != nil {
				headers = len(*r.Headers)
			}
			got = fmt.Sprintf("record %s %s %d", r.Topic, value, headers)
		}
		if got != c.want {
			t.Errorf("%s: got %q, want %q", c.line, got, c.want)
		}
	}
}

func someResults() results {
	r := newResults()
	r.set("a", check{Name: "group", OK: true})
	r.set("a", check{Name: "commit", Error: "not done"})
	r.set("b", check{Name: "group", OK: true})
	r.read("a", "gzip", "a", "")
	r.read("a", "gzip", "b", "29 records instead of 30")
	r.read("b", "none", "a", "")
	r.read("b", "none", "b", "")
	r.apis["quire"] = map[int]apiRange{0: {"Produce", 0, 13}, 1: {"Fetch", 0, 18}}
	return r
}

func TestResultsAreReadAsWritten(t *testing.T) {
	text := someResults().String()
	again, err := parseResults(text)
	if err != nil {
		t.Fatal(err)
	}
	if again.String() != text {
		t.Errorf("read and written again:\n%s\nwas\n%s", again, text)
	}
	for _, line := range []string{"check a group", "check a group perhaps", "api quire 0 0 Produce", "read a gzip", "nonsense a b c"} {
		if _, err := parseResults(line); err == nil {
			t.Errorf("%q is read without an error", line)
		}
	}
}

func TestDifferences(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(results)
		want   string
	}{
		{"nothing", func(results) {}, ""},
		{"another reason", func(r results) { r.checks["a"]["commit"] = "not done on port 5" }, ""},
		{"fails now", func(r results) { r.checks["a"]["group"] = "timed out" }, "check a group: failed: timed out, expected ok"},
		{"passes now", func(r results) { r.checks["a"]["commit"] = "" }, "check a commit: ok, expected failed"},
		{"gone", func(r results) { delete(r.checks["b"], "group") }, "check b group: missing"},
		{"new", func(r results) { r.checks["b"]["large"] = "" }, "check b large: ok, expected missing"},
		{"unread", func(r results) { r.reads["b"]["none"]["a"] = "0 records" }, "b reads none by a: failed"},
		{"not tried", func(r results) { delete(r.reads["b"]["none"], "a") }, "b reads none by a: missing"},
		{"another version", func(r results) { r.apis["quire"][0] = apiRange{"Produce", 3, 13} }, "api 0 of quire"},
		{"no such API", func(r results) { delete(r.apis["quire"], 1) }, "api 1 of quire"},
	} {
		got := someResults()
		c.change(got)
		found := differences(someResults(), got)
		if (c.want == "") != (len(found) == 0) || (len(found) > 0 && (len(found) != 1 || !strings.Contains(found[0], c.want))) {
			t.Errorf("%s: got %q, want %q", c.name, found, c.want)
		}
	}
}

// A run of some rows leaves what is known of the others.
func TestMerge(t *testing.T) {
	a, b := Row{Name: "a"}, Row{Name: "b"}
	found := newResults()
	found.set("a", check{Name: "group", Error: "timed out"})
	found.read("a", "gzip", "a", "0 records")
	merged := merge(someResults(), found, []Row{a}, []Row{a, b})
	want := someResults()
	want.checks["a"] = map[string]verdict{"group": "timed out"}
	want.reads["a"]["gzip"]["a"] = "0 records"
	if merged.String() != want.String() {
		t.Errorf("got\n%s\nwant\n%s", merged, want)
	}
	// A row that is no more takes all its results with it.
	merged = merge(someResults(), newResults(), nil, []Row{b})
	if got := slices.Collect(maps.Keys(merged.checks)); !slices.Equal(got, []string{"b"}) || len(merged.reads["a"]) > 0 || len(merged.reads["b"]["none"]) != 1 {
		t.Errorf("without row a:\n%s", merged)
	}
	if got := only(someResults(), []Row{b}); len(got.checks) != 1 || len(got.reads) != 1 || len(got.reads["b"]["none"]) != 1 {
		t.Errorf("only of row b:\n%s", got)
	}
}

// What a program does wrong is a result, and never stops the zoo.
func TestPhase(t *testing.T) {
	shell := func(script string) Program { return Program{Args: []string{"/bin/sh", "-c", script}} }
	z := &zoo{tools: &Tools{Work: t.TempDir()}, bootstrap: "127.0.0.1:1", logf: t.Logf, programs: map[string]Program{
		"good":     shell(`echo chatter; echo "{\"check\":\"$ZOO_PHASE\",\"ok\":true}"; echo '{"topic":"t","k":null,"v":"61","t":1,"h":null}'`),
		"crash":    shell(`echo '{"check":"one","ok":true}'; exit 3`),
		"nonsense": shell(`echo '{"check":'; sleep 600`),
		"hang":     shell(`echo '{"check":"one","ok":true}'; sleep 600 & wait`),
	}}
	if err := os.MkdirAll(filepath.Join(z.tools.Work, "zoo", "logs"), 0o755); err != nil {
		t.Fatal(err)
	}
	checks, records, err := z.phase(t.Context(), Row{Name: "good"}, phaseOwn, nil)
	if err != nil || len(checks) != 1 || checks[0].Name != phaseOwn || len(records) != 1 {
		t.Errorf("good: %v, %v, %v", checks, records, err)
	}
	if checks, _, err = z.phase(t.Context(), Row{Name: "crash"}, phaseOwn, nil); err == nil || len(checks) != 1 {
		t.Errorf("crash: %v, %v: want the check and an error", checks, err)
	}
	if _, _, err = z.phase(t.Context(), Row{Name: "nonsense"}, phaseOwn, nil); err == nil || !strings.Contains(err.Error(), "unexpected end of JSON") {
		t.Errorf("nonsense: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	// Its child keeps the output open: this returns because both are ended.
	if _, _, err = z.phase(ctx, Row{Name: "hang"}, phaseOwn, nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("hang: %v, want %v", err, context.DeadlineExceeded)
	}
}

// An impossible check has to fail: when it passes, the list is out of date.
func TestImpossible(t *testing.T) {
	row := Row{Name: "a", Impossible: map[string]string{"group": "no ZooKeeper", "admin-*": "has no admin client"}}
	z := &zoo{logf: t.Logf, results: newResults()}
	z.judge(row, check{Name: "group", Error: "fails"})
	if len(z.results.checks) != 0 {
		t.Errorf("a check that fails as listed: %v", z.results.checks)
	}
	z.judge(row, check{Name: "admin-create-topic", OK: true})
	z.judge(row, check{Name: "commit", Error: "fails"})
	if got := z.results.checks["a"]; len(got) != 2 || got["admin-create-topic"] == "" || got["commit"] == "" {
		t.Errorf("got %v", got)
	}
}

func TestRecordsAreJSON(t *testing.T) {
	var r record
	if err := json.Unmarshal([]byte(`{"topic":"t","k":"6b","v":null,"t":-1,"h":[]}`), &r); err != nil {
		t.Fatal(err)
	}
	if *r.Key != "6b" || r.Value != nil || *r.Timestamp != -1 || r.Headers == nil || len(*r.Headers) != 0 {
		t.Errorf("got %+v", r)
	}
}

// What is chosen is what is installed.
func TestChoose(t *testing.T) {
	all := []Row{{Name: "java-1"}, {Name: "java-2", CI: true}, {Name: "kcat", CI: true}}
	for _, c := range []struct {
		pattern string
		full    bool
		want    []string
	}{
		{"", false, []string{"java-2", "kcat"}},
		{"", true, []string{"java-1", "java-2", "kcat"}},
		{"^java-", false, []string{"java-1", "java-2"}},
		{"^java-", true, []string{"java-1", "java-2"}},
		{"sarama", true, nil},
	} {
		chosen, err := choose(all, c.pattern, c.full)
		var names []string
		for _, r := range chosen {
			names = append(names, r.Name)
		}
		if !slices.Equal(names, c.want) || (err == nil) != (c.want != nil) {
			t.Errorf("-rows %q, -full %t: %v, %v; want %v", c.pattern, c.full, names, err, c.want)
		}
	}
}
