package main

import (
	"bufio"
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// A verdict is "" for passed, else why not.
type verdict = string

// results are what a run found. Reasons of failures are kept for the reader and
// not compared: they hold ports and times.
type results struct {
	checks map[string]map[string]verdict            // row, check
	reads  map[string]map[string]map[string]verdict // consumer, codec, producer
	apis   map[string]map[int]apiRange              // server, key
}

// An apiRange is what a server says about an API in its ApiVersions answer.
type apiRange struct {
	Name     string
	Min, Max int
}

func newResults() results {
	return results{
		checks: map[string]map[string]verdict{},
		reads:  map[string]map[string]map[string]verdict{},
		apis:   map[string]map[int]apiRange{},
	}
}

// set records a check. One that a program tries several times passes when all
// of them do.
func (r results) set(row string, c check) {
	if r.checks[row] == nil {
		r.checks[row] = map[string]verdict{}
	}
	if c.OK && r.checks[row][c.Name] == "" {
		r.checks[row][c.Name] = ""
		return
	}
	if !c.OK {
		r.checks[row][c.Name] = cmp.Or(c.Error, "failed")
	}
}

func (r results) failed(row, name string) bool { return r.checks[row][name] != "" }

func (r results) read(consumer, codec, producer string, v verdict) {
	if r.reads[consumer] == nil {
		r.reads[consumer] = map[string]map[string]verdict{}
	}
	if r.reads[consumer][codec] == nil {
		r.reads[consumer][codec] = map[string]verdict{}
	}
	r.reads[consumer][codec][producer] = v
}

// The file of results has one fact a line, sorted:
//
//	api SERVER KEY MIN MAX NAME
//	check ROW CHECK ok
//	check ROW CHECK failed REASON
//	read CONSUMER CODEC PRODUCER…
//	unread CONSUMER CODEC PRODUCER REASON

const resultsHeader = "# What every client did, one fact a line. Written by: go run ./zoo -update\n"

func (r results) String() string {
	var b strings.Builder
	b.WriteString(resultsHeader)
	for _, server := range sortedKeys(r.apis) {
		for _, key := range sortedKeys(r.apis[server]) {
			a := r.apis[server][key]
			fmt.Fprintf(&b, "api %s %d %d %d %s\n", server, key, a.Min, a.Max, a.Name)
		}
	}
	for _, row := range sortedKeys(r.checks) {
		for _, name := range sortedKeys(r.checks[row]) {
			if v := r.checks[row][name]; v != "" {
				fmt.Fprintf(&b, "check %s %s failed %s\n", row, name, v)
			} else {
				fmt.Fprintf(&b, "check %s %s ok\n", row, name)
			}
		}
	}
	for _, consumer := range sortedKeys(r.reads) {
		for _, codec := range sortedKeys(r.reads[consumer]) {
			var read, unread []string
			for _, producer := range sortedKeys(r.reads[consumer][codec]) {
				if v := r.reads[consumer][codec][producer]; v != "" {
					unread = append(unread, fmt.Sprintf("unread %s %s %s %s\n", consumer, codec, producer, v))
				} else {
					read = append(read, producer)
				}
			}
			if len(read) > 0 {
				fmt.Fprintf(&b, "read %s %s %s\n", consumer, codec, strings.Join(read, " "))
			}
			b.WriteString(strings.Join(unread, ""))
		}
	}
	return b.String()
}

func sortedKeys[K cmp.Ordered, V any](m map[K]V) []K { return slices.Sorted(maps.Keys(m)) }

// parseResults reads what String writes.
func parseResults(text string) (results, error) {
	r := newResults()
	lines := bufio.NewScanner(strings.NewReader(text))
	for n := 1; lines.Scan(); n++ {
		if err := r.parseFact(lines.Text()); err != nil {
			return r, fmt.Errorf("line %d: %w", n, err)
		}
	}
	return r, lines.Err()
}

func (r results) parseFact(line string) error {
	f := strings.Fields(line)
	if len(f) == 0 || strings.HasPrefix(line, "#") {
		return nil
	}
	rest := func(n int) string { return strings.Join(f[n:], " ") }
	switch {
	case f[0] == "api" && len(f) == 6:
		var key int
		var a apiRange
		if _, err := fmt.Sscan(rest(2), &key, &a.Min, &a.Max, &a.Name); err != nil {
			return err
		}
		if r.apis[f[1]] == nil {
			r.apis[f[1]] = map[int]apiRange{}
		}
		r.apis[f[1]][key] = a
	case f[0] == "check" && len(f) == 4 && f[3] == "ok":
		r.set(f[1], check{Name: f[2], OK: true})
	case f[0] == "check" && len(f) > 4 && f[3] == "failed":
		r.set(f[1], check{Name: f[2], Error: rest(4)})
	case f[0] == "read" && len(f) > 3:
		for _, producer := range f[3:] {
			r.read(f[1], f[2], producer, "")
		}
	case f[0] == "unread" && len(f) > 4:
		r.read(f[1], f[2], f[3], rest(4))
	default:
		return fmt.Errorf("%.80q: unknown fact", line)
	}
	return nil
}

// merge puts what a run of some rows found in the place of what is known of
// them, and keeps only rows that exist.
func merge(known, found results, ran, all []Row) results {
	in := func(rows []Row, name string) bool {
		return slices.ContainsFunc(rows, func(r Row) bool { return r.Name == name })
	}
	merged := newResults()
	maps.Copy(merged.apis, known.apis)
	maps.Copy(merged.apis, found.apis)
	for row, checks := range known.checks {
		if in(all, row) && !in(ran, row) {
			merged.checks[row] = checks
		}
	}
	maps.Copy(merged.checks, found.checks)
	known.eachRead(func(consumer, codec, producer string, v verdict) {
		if in(all, consumer) && in(all, producer) && !(in(ran, consumer) && in(ran, producer)) {
			merged.read(consumer, codec, producer, v)
		}
	})
	found.eachRead(merged.read)
	return merged
}

func (r results) eachRead(f func(consumer, codec, producer string, v verdict)) {
	for consumer, byCodec := range r.reads {
		for codec, byProducer := range byCodec {
			for producer, v := range byProducer {
				f(consumer, codec, producer, v)
			}
		}
	}
}

// differences lists where the two say something else: passed, failed or not
// there. Reasons do not count.
func differences(want, got results) []string {
	outcome := func(v verdict, ok bool) string {
		switch {
		case !ok:
			return "missing"
		case v == "":
			return "ok"
		default:
			return "failed: " + v
		}
	}
	kind := func(s string) string { return s[:2] }
	var found []string
	flat := func(r results) map[string]verdict {
		m := map[string]verdict{}
		for row, checks := range r.checks {
			for name, v := range checks {
				m["check "+row+" "+name] = v
			}
		}
		r.eachRead(func(consumer, codec, producer string, v verdict) {
			m[consumer+" reads "+codec+" by "+producer] = v
		})
		return m
	}
	w, g := flat(want), flat(got)
	both := maps.Clone(w)
	maps.Copy(both, g)
	for _, fact := range sortedKeys(both) {
		wv, wok := w[fact]
		gv, gok := g[fact]
		if a, b := outcome(wv, wok), outcome(gv, gok); kind(a) != kind(b) {
			found = append(found, fmt.Sprintf("%s: %s, expected %s", fact, b, a))
		}
	}
	for _, server := range sortedKeys(got.apis) {
		for _, key := range slices.Compact(slices.Sorted(slices.Values(slices.Concat(sortedKeys(want.apis[server]), sortedKeys(got.apis[server]))))) {
			if a, b := want.apis[server][key], got.apis[server][key]; a != b {
				found = append(found, fmt.Sprintf("api %d of %s: %+v, expected %+v", key, server, b, a))
			}
		}
	}
	return found
}

// only returns what is known of the rows that ran: their checks, and what they
// read of each other.
func only(known results, ran []Row) results {
	in := func(name string) bool {
		return slices.ContainsFunc(ran, func(r Row) bool { return r.Name == name })
	}
	kept := newResults()
	kept.apis = known.apis
	for row, checks := range known.checks {
		if in(row) {
			kept.checks[row] = checks
		}
	}
	known.eachRead(func(consumer, codec, producer string, v verdict) {
		if in(consumer) && in(producer) {
			kept.read(consumer, codec, producer, v)
		}
	})
	return kept
}
