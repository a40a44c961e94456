package main

import (
	"cmp"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// compatibilityDocument is COMPATIBILITY.md.
func compatibilityDocument(all []Row, r results, differences []difference) string {
	var b strings.Builder
	b.WriteString("# Compatibility\n\n" + generatedBy + `
Kafka clients from 0.8 on work with Quire on one port, old and new on the same topic
at once, with no setting but its address. What is said here is what was run:
` + "[RESULTS.md](RESULTS.md) shows every client and every check.\n\n")
	b.WriteString("## Clients\n\n| client | versions run (as a release whose protocol they were told to speak; ✗ not in everything) | codecs |\n|---|---|---|\n")
	for _, group := range clients(all) {
		var written []string
		for _, row := range group {
			written = append(written, row.Codecs...)
			written = append(written, row.reads()...)
		}
		var known []string
		for _, c := range codecs {
			if slices.Contains(written, c) {
				known = append(known, c)
			}
		}
		fmt.Fprintf(&b, "| %s | %s | %s |\n", group[0].Client, versionList(group, r), strings.Join(known, ", "))
	}
	b.WriteString("\nWhat no server of today can do for them:\n\n" + cmp.Or(impossibles(all), "Nothing.\n"))
	b.WriteString(apiTable(r))
	b.WriteString("\n## Differences from Apache Kafka\n\n")
	b.WriteString("Every request of every version above is sent to Apache Kafka 3.9.1 and 4.4.0 and to Quire, and the\nanswers are compared field by field (`transcripts`). These are meant to differ:\n\n")
	if len(differences) == 0 {
		b.WriteString("None.\n")
	} else {
		b.WriteString("| where | why |\n|---|---|\n")
		for _, d := range differences {
			fmt.Fprintf(&b, "| %s | %s |\n", strings.Join(d.steps, "<br>"), d.reason)
		}
	}
	return b.String()
}

// versionList names each version once, with the protocol settings it ran with:
// rows say "1.0 as 0.8".
func versionList(group []Row, r results) string {
	var versions []string
	settings := map[string][]string{}
	for _, row := range group {
		version, setting, set := strings.Cut(row.Version, " as ")
		if !slices.Contains(versions, version) {
			versions = append(versions, version)
		}
		if !set {
			setting = "its own choice"
		}
		if failed(row, r) {
			setting += " ✗"
		}
		settings[version] = append(settings[version], setting)
	}
	for i, v := range versions {
		switch all := settings[v]; {
		case len(all) == 1 && all[0] == "its own choice":
		case len(all) == 1 && all[0] == "its own choice ✗":
			versions[i] += " ✗"
		default:
			versions[i] += " (as " + strings.Join(all, ", ") + ")"
		}
	}
	return strings.Join(versions, "; ")
}

// clients groups the rows by client, in the order of the table.
func clients(all []Row) [][]Row {
	var groups [][]Row
	at := map[string]int{}
	for _, row := range all {
		i, ok := at[row.Client]
		if !ok {
			i = len(groups)
			at[row.Client] = i
			groups = append(groups, nil)
		}
		groups[i] = append(groups[i], row)
	}
	return groups
}

func failed(row Row, r results) bool {
	for _, v := range r.checks[row.Name] {
		if v != "" {
			return true
		}
	}
	for _, byProducer := range r.reads[row.Name] {
		for _, v := range byProducer {
			if v != "" {
				return true
			}
		}
	}
	return false
}

func apiTable(r results) string {
	servers := []struct{ name, head string }{{quire, "Quire"}, {"kafka-3.9.1", "Kafka 3.9.1"}, {"kafka-4.4.0", "Kafka 4.4.0"}}
	names := map[int]string{}
	for _, s := range servers {
		for key, a := range r.apis[s.name] {
			names[key] = a.Name
		}
	}
	var b strings.Builder
	b.WriteString("\n## APIs\n\nVersions as the servers advertise them. Kafka 4 names Produce from 0 on for the sake of\nlibrdkafka and takes it from 3 on.\n\n| key | API |")
	for _, s := range servers {
		fmt.Fprintf(&b, " %s |", s.head)
	}
	b.WriteString("\n|---|---|" + strings.Repeat("---|", len(servers)) + "\n")
	for _, key := range sortedKeys(names) {
		fmt.Fprintf(&b, "| %d | %s |", key, names[key])
		for _, s := range servers {
			a, ok := r.apis[s.name][key]
			switch {
			case !ok:
				b.WriteString(" – |")
			case a.Min == a.Max:
				fmt.Fprintf(&b, " %d |", a.Min)
			default:
				fmt.Fprintf(&b, " %d–%d |", a.Min, a.Max)
			}
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// A difference from Kafka that is meant: patterns of the requests, and why.
type difference struct {
	steps  []string
	reason string
}

// differencesFile is where the transcripts' test keeps its list, so that what
// is documented is what is tested.
const differencesFile = "transcripts/differences_test.go"

// readDifferences reads the list out of the test's source: the elements of the
// variable "differences", whose fields are steps, lines and reason. Steps with
// the same reason become one.
func readDifferences(root string) ([]difference, error) {
	file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(root, differencesFile), nil, 0)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	literal := variable(file, "differences")
	if literal == nil {
		return nil, fmt.Errorf("%s: no variable differences", differencesFile)
	}
	var found []difference
	for _, e := range literal.Elts {
		element, ok := e.(*ast.CompositeLit)
		if !ok {
			return nil, fmt.Errorf("%s: an element of differences is not a literal", differencesFile)
		}
		steps, reason := field(element, "steps", 0), field(element, "reason", 2)
		if steps == "" || reason == "" {
			return nil, fmt.Errorf("%s: an element of differences has no steps or no reason", differencesFile)
		}
		steps = "`" + strings.ReplaceAll(steps, "|", `\|`) + "`"
		i := slices.IndexFunc(found, func(d difference) bool { return d.reason == reason })
		switch {
		case i < 0:
			found = append(found, difference{[]string{steps}, reason})
		case !slices.Contains(found[i].steps, steps):
			found[i].steps = append(found[i].steps, steps)
		}
	}
	return found, nil
}

func variable(file *ast.File, name string) *ast.CompositeLit {
	for _, d := range file.Decls {
		decl, ok := d.(*ast.GenDecl)
		if !ok {
			continue
		}
		for _, s := range decl.Specs {
			spec, ok := s.(*ast.ValueSpec)
			if ok && len(spec.Names) == 1 && spec.Names[0].Name == name && len(spec.Values) == 1 {
				literal, _ := spec.Values[0].(*ast.CompositeLit)
				return literal
			}
		}
	}
	return nil
}

// field returns the string in a struct literal's field, by name or position.
func field(literal *ast.CompositeLit, name string, position int) string {
	for i, e := range literal.Elts {
		if kv, ok := e.(*ast.KeyValueExpr); ok {
			if key, ok := kv.Key.(*ast.Ident); ok && key.Name == name {
				return text(kv.Value)
			}
		} else if i == position {
			return text(e)
		}
	}
	return ""
}

// text evaluates strings and sums of them.
func text(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.BasicLit:
		s, err := strconv.Unquote(e.Value)
		if err == nil {
			return s
		}
	case *ast.BinaryExpr:
		return text(e.X) + text(e.Y)
	}
	return ""
}
