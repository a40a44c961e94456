package main

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// writeTables writes the documents that are made of the results.
func writeTables(root string, all []Row, r results) error {
	differences, err := readDifferences(root)
	if err != nil {
		return err
	}
	return errors.Join(
		os.WriteFile(filepath.Join(root, resultsTable), []byte(resultsDocument(all, r)), 0o644),
		os.WriteFile(filepath.Join(root, compatibilityFile), []byte(compatibilityDocument(all, r, differences)), 0o644),
	)
}

// columns are the checks with a column of their own, and its head.
var columns = []struct{ check, head string }{
	{"metadata", "metadata"},
	{"tombstone", "null value"},
	{"large", "500 KB"},
	{"idempotent", "idempotent"},
	{"group", "group"},
	{"commit", "commit"},
	{"seek-time", "by time"},
}

const generatedBy = "<!-- Written by: go run ./zoo -full -update -->\n"

// resultsDocument is RESULTS.md.
func resultsDocument(all []Row, r results) string {
	var b strings.Builder
	b.WriteString("# What Kafka's clients do with Quire\n\n" + generatedBy + "\n")
	passed, failed := r.count(all)
	var reads, unread int
	r.eachRead(func(_, _, _ string, v verdict) {
		if v == "" {
			reads++
		} else {
			unread++
		}
	})
	fmt.Fprintf(&b, `%d clients (%d programs at their versions and protocol settings) ran against one
server with no setting but its address. %d checks passed, %d failed. Of %d topics
that one wrote and another read, %d were equal in every key, value, timestamp and
header that both have.

✓ passed · ✗ failed, reasons below · – the client has no such call · ∅ impossible
against any server of today, reasons below. A codec stands in its row when the
client wrote with it and read it back.

`, countClients(all), len(all), passed, failed, reads+unread, reads)
	b.WriteString("| client | version | codecs |")
	for _, c := range columns {
		fmt.Fprintf(&b, " %s |", c.head)
	}
	b.WriteString("\n|---|---|---|" + strings.Repeat("---|", len(columns)) + "\n")
	for _, row := range all {
		fmt.Fprintf(&b, "| %s | %s | %s |", row.Client, row.Version, codecCell(row, r))
		for _, c := range columns {
			fmt.Fprintf(&b, " %s |", cell(row, r, c.check))
		}
		b.WriteByte('\n')
	}
	b.WriteString("\n## Everything else they did\n\n| client | version | admin calls | more |\n|---|---|---|---|\n")
	for _, row := range all {
		admin, more := furtherChecks(row, r)
		if admin+more == "" {
			continue
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", row.Client, row.Version, cmp.Or(admin, "–"), cmp.Or(more, "–"))
	}
	b.WriteString("\n## What they read of each other\n\nTopics read, of all that were written in the codec.\n\n| consumer | version | " +
		strings.Join(codecs, " | ") + " |\n|---|---|" + strings.Repeat("---|", len(codecs)) + "\n")
	for _, row := range all {
		fmt.Fprintf(&b, "| %s | %s |", row.Client, row.Version)
		for _, codec := range codecs {
			fmt.Fprintf(&b, " %s |", readCell(row, r, codec))
		}
		b.WriteByte('\n')
	}
	b.WriteString("\n## Failed\n\n" + cmp.Or(failures(all, r), "Nothing.\n"))
	b.WriteString("\n## Impossible\n\n" + cmp.Or(impossibles(all)+unreadablePairs(all), "Nothing.\n"))
	return b.String()
}

func (r results) count(all []Row) (passed, failed int) {
	for _, row := range all {
		for name, v := range r.checks[row.Name] {
			if v == "" {
				passed++
			} else if row.impossible(name) == "" {
				failed++
			}
		}
	}
	return passed, failed
}

func countClients(all []Row) int {
	names := map[string]bool{}
	for _, r := range all {
		names[r.Client] = true
	}
	return len(names)
}

func cell(row Row, r results, name string) string {
	v, ok := r.checks[row.Name][name]
	switch {
	case ok && v == "":
		return "✓"
	case ok:
		return "✗"
	case row.impossible(name) != "":
		return "∅"
	default:
		return "–"
	}
}

func codecCell(row Row, r results) string {
	var out []string
	for _, codec := range codecs {
		write, read := cell(row, r, "produce-"+codec), cell(row, r, "consume-"+codec)
		switch {
		case write == "–" && read == "–":
		case write == "✗" || read == "✗":
			out = append(out, "✗ "+codec)
		case write == "✓" && read == "✓":
			out = append(out, codec)
		case write == "✓":
			out = append(out, codec+" (writes)")
		case read == "✓":
			out = append(out, codec+" (reads)")
		}
	}
	return cmp.Or(strings.Join(out, ", "), "–")
}

// furtherChecks are those without a column.
func furtherChecks(row Row, r results) (admin, more string) {
	var adminCalls, others []string
	for _, name := range sortedKeys(r.checks[row.Name]) {
		mark := ""
		if row.impossible(name) != "" {
			mark = "∅ "
		} else if r.checks[row.Name][name] != "" {
			mark = "✗ "
		}
		call, isAdmin := strings.CutPrefix(name, "admin-")
		switch {
		case isAdmin:
			adminCalls = append(adminCalls, mark+call)
		case strings.HasPrefix(name, "produce-"), strings.HasPrefix(name, "consume-"):
		case slices.ContainsFunc(columns, func(c struct{ check, head string }) bool { return c.check == name }):
		default:
			others = append(others, mark+name)
		}
	}
	return strings.Join(adminCalls, ", "), strings.Join(others, ", ")
}

func readCell(row Row, r results, codec string) string {
	if row.impossible(phaseConsume) != "" {
		return "∅"
	}
	all := r.reads[row.Name][codec]
	if len(all) == 0 {
		return "–"
	}
	equal := 0
	for _, v := range all {
		if v == "" {
			equal++
		}
	}
	if equal == len(all) {
		return fmt.Sprintf("all %d", equal)
	}
	return fmt.Sprintf("✗ %d of %d", equal, len(all))
}

func failures(all []Row, r results) string {
	var b strings.Builder
	for _, row := range all {
		for _, name := range sortedKeys(r.checks[row.Name]) {
			if v := r.checks[row.Name][name]; v != "" && row.impossible(name) == "" {
				fmt.Fprintf(&b, "- %s, %s: %s\n", row.Name, name, v)
			}
		}
		for _, codec := range codecs {
			for _, producer := range sortedKeys(r.reads[row.Name][codec]) {
				if v := r.reads[row.Name][codec][producer]; v != "" {
					fmt.Fprintf(&b, "- %s reads %s by %s: %s\n", row.Name, codec, producer, v)
				}
			}
		}
	}
	return b.String()
}

// impossibles lists each reason once, with the rows and checks it is for.
func impossibles(all []Row) string {
	byReason := map[string][]string{}
	var reasons []string
	for _, row := range all {
		for _, name := range slices.Sorted(maps.Keys(row.Impossible)) {
			reason := row.Impossible[name]
			if byReason[reason] == nil {
				reasons = append(reasons, reason)
			}
			byReason[reason] = append(byReason[reason], row.Name+" "+name)
		}
	}
	var b strings.Builder
	for _, reason := range reasons {
		fmt.Fprintf(&b, "- %s: %s\n", strings.Join(byReason[reason], ", "), reason)
	}
	return b.String()
}
