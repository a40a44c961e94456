package transcripts

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
)

// A choice decides what is expected where the two Kafkas answer differently:
// the lines of which version, in which steps, and why. The first that matches
// counts; steps match as a whole.
type choice struct {
	steps  string
	follow string // onKafka3 or onKafka4
	reason string
}

// A difference from the expected answer that is meant: in which steps, in which
// lines of either side, and why. Both patterns match the whole of a text.
type difference struct {
	steps, lines string
	reason       string
}

// update writes the target's file anew.
func (s *script) update() {
	file, ok := files[target]
	if !ok {
		s.t.Fatal("-update writes what Apache Kafka answers: set QUIRE_CONFORMANCE_TARGET to kafka or kafka3")
	}
	s.write(file)
}

// write notes the answers in a file. An answer that equals the one before it is
// written as a further step of that.
func (s *script) write(file string) {
	var b strings.Builder
	for i, a := range s.answers {
		if !slices.Equal(split(join(a.lines)), a.lines) {
			s.t.Fatalf("%s: the lines are not what is read back:\n%q\n%q", a.step, a.lines, split(join(a.lines)))
		}
		// Versions that follow each other share a line.
		situation, version := cutVersion(a.step)
		if before, _ := cutVersion(s.answers[max(0, i-1)].step); i > 0 && before == situation && version != "" && slices.Equal(a.lines, s.answers[i-1].lines) {
			b.WriteString(version)
		} else {
			b.WriteString("# " + a.step)
		}
		if i+1 < len(s.answers) && slices.Equal(a.lines, s.answers[i+1].lines) {
			if after, _ := cutVersion(s.answers[i+1].step); after != situation || version == "" {
				b.WriteByte('\n')
			}
			continue
		}
		b.WriteByte('\n')
		for _, line := range join(a.lines) {
			fmt.Fprintf(&b, "%s\n", line)
		}
		b.WriteByte('\n')
	}
	if err := os.WriteFile(file, []byte(b.String()), 0o644); err != nil {
		s.t.Fatal(err)
	}
}

var version = regexp.MustCompile(` v\d+( v\d+)*$`)

// cutVersion splits a step into what is asked, and " vN".
func cutVersion(step string) (situation, versions string) {
	at := version.FindStringIndex(step)
	if at == nil {
		return step, ""
	}
	return step[:at[0]], step[at[0]:]
}

// join writes the fields of one element on one line, for files, and what a line
// has in common with the one before it as a tab:
//
//	Topics.Partitions { Partition = 0; ErrorCode = 0 }
//	Topics.Partitions.RecordBatches: record 0 at t+0: "k"="v"
//		record 1 at t+1000: "k"="v"
func join(lines []string) []string {
	var out []string
	last, records := "", ""
	for _, line := range lines {
		if path, rest, ok := strings.Cut(line, ": "); ok && !strings.Contains(path, " ") {
			if path == records {
				line = "\t" + rest
			}
			out, last, records = append(out, line), "", path
			continue
		}
		records = ""
		path, value, ok := strings.Cut(line, " = ")
		dot := strings.LastIndexByte(path, '.')
		if !ok || strings.ContainsAny(path, ": ") || dot < 0 {
			out, last = append(out, line), ""
			continue
		}
		field := path[dot+1:] + " = " + value
		if n := len(out) - 1; last == path[:dot] {
			out[n] = strings.TrimSuffix(out[n], " }") + "; " + field + " }"
		} else {
			out, last = append(out, path[:dot]+" { "+field+" }"), path[:dot]
		}
	}
	return out
}

var joinedField = regexp.MustCompile(`(\S+ = (?:"(?:[^"\\]|\\.)*"|\[[^\]]*\]|[^";\[]*?))(?:; | }$)`)

// split undoes join.
func split(lines []string) []string {
	var out []string
	records := ""
	for _, line := range lines {
		if rest, ok := strings.CutPrefix(line, "\t"); ok {
			line = records + ": " + rest
		}
		if path, _, ok := strings.Cut(line, ": "); ok && !strings.Contains(path, " ") {
			out, records = append(out, line), path
			continue
		}
		path, fields, ok := strings.Cut(line, " { ")
		if !ok || strings.ContainsAny(path, ": ") {
			out = append(out, line)
			continue
		}
		for _, field := range joinedField.FindAllStringSubmatch(fields, -1) {
			out = append(out, path+"."+field[1])
		}
	}
	return out
}

// read returns the answers of a file by step.
func (s *script) read(file string) map[string][]string {
	s.t.Helper()
	raw, err := os.ReadFile(file)
	if err != nil {
		s.t.Fatal(err)
	}
	answers := map[string][]string{}
	for block := range strings.SplitSeq(strings.TrimSpace(string(raw)), "\n\n") {
		var steps, lines []string
		for line := range strings.SplitSeq(block, "\n") {
			if step, ok := strings.CutPrefix(line, "# "); ok {
				situation, versions := cutVersion(step)
				if versions == "" {
					steps = append(steps, step)
				}
				for _, v := range strings.Fields(versions) {
					steps = append(steps, situation+" "+v)
				}
			} else {
				lines = append(lines, line)
			}
		}
		for _, step := range steps {
			answers[step] = split(lines)
		}
	}
	return answers
}

// compare holds the answers against the files.
func (s *script) compare() {
	s.t.Helper()
	if file, ok := files[target]; ok {
		want := s.read(file)
		for _, got := range s.answers {
			s.differ(got, want[got.step], nil)
			delete(want, got.step)
		}
		for step := range want {
			s.t.Errorf("%s: in %s, but was not asked", step, file)
		}
		return
	}

	old, now := s.read(files[onKafka3]), s.read(files[onKafka4])
	intended := differences
	if manyNodes {
		intended = slices.Concat(differences, differencesOfNodes)
	}
	chosen, meant := compileChoices(choices), compileDifferences(intended)
	for _, got := range s.answers {
		lines3, asked3 := old[got.step]
		lines4, asked4 := now[got.step]
		delete(old, got.step)
		delete(now, got.step)
		var want []string
		switch {
		case !asked3 && !asked4:
			s.t.Errorf("%s: not in testdata, which must be written anew", got.step)
			continue
		case strings.HasPrefix(got.step, versionsOf):
			// Everybody's clients are served.
			want = union(lines3, lines4)
		case unserved(lines4) && unserved(lines3):
			if len(lines3) == 1 && lines3[0] == stuck || len(lines4) == 1 && lines4[0] == stuck {
				continue
			}
			if want = lines4; !asked4 {
				want = lines3
			}
		case unserved(lines4) && asked3:
			want = lines3
		case unserved(lines3) || slices.Equal(lines3, lines4):
			want = lines4
		default:
			switch chosen.of(got.step) {
			case onKafka3:
				want = lines3
			case onKafka4:
				want = lines4
			default:
				s.t.Errorf("%s: the two Kafkas differ and no choice is made\n\t3.9.1: %s\n\t4.4.0: %s\n\tgot:   %s", got.step,
					block(subtract(lines3, lines4)), block(subtract(lines4, lines3)), block(got.lines))
				continue
			}
		}
		s.differ(got, want, meant)
	}
	for step := range old {
		s.t.Errorf("%s: in testdata, but was not asked", step)
	}
	for step := range now {
		s.t.Errorf("%s: in testdata, but was not asked", step)
	}
	chosen.unused(s)
	meant.unused(s)
}

// union returns the range of versions that one or the other serves.
func union(a, b []string) []string {
	var first, last []int
	for _, line := range []string{a[0], b[0]} {
		var from, to int
		if _, err := fmt.Sscanf(line, rangeFormat, &from, &to); err == nil {
			first, last = append(first, from), append(last, to)
		}
	}
	if first == nil {
		return []string{notServed}
	}
	return []string{fmt.Sprintf(rangeFormat, slices.Min(first), slices.Max(last))}
}

// unserved tells that a Kafka had nothing to say, because it does not serve the
// version: the other's answer counts.
func unserved(lines []string) bool {
	return len(lines) == 0 || len(lines) == 1 && (lines[0] == notServed || lines[0] == closed || lines[0] == stuck)
}

func (s *script) differ(got answer, want []string, meant *rules) {
	s.t.Helper()
	missing, extra := subtract(want, got.lines), subtract(got.lines, want)
	allowed := func(line string) bool { return meant.allow(got.step, line) }
	missing, extra = slices.DeleteFunc(missing, allowed), slices.DeleteFunc(extra, allowed)
	if len(missing)+len(extra) > 0 {
		s.t.Errorf("%s\n\tKafka: %s\n\tgot:   %s", got.step, block(missing), block(extra))
	}
}

func block(lines []string) string { return strings.Join(lines, "\n\t       ") }

// rules are compiled choices or differences, and which of them took effect:
// one that has none any more is a failure.
type rules struct {
	steps, lines []*regexp.Regexp
	follow, text []string
	used         []bool
}

func compileChoices(list []choice) *rules {
	r := &rules{used: make([]bool, len(list))}
	for _, c := range list {
		r.steps = append(r.steps, regexp.MustCompile("^(?:"+c.steps+")$"))
		r.follow = append(r.follow, c.follow)
		r.text = append(r.text, c.steps+": "+c.reason)
	}
	return r
}

func compileDifferences(list []difference) *rules {
	r := &rules{used: make([]bool, len(list))}
	for _, d := range list {
		r.steps = append(r.steps, regexp.MustCompile("^(?:"+d.steps+")$"))
		r.lines = append(r.lines, regexp.MustCompile("^(?:"+d.lines+")$"))
		r.text = append(r.text, d.steps+": "+d.lines+": "+d.reason)
	}
	return r
}

// numbers are those of elements, which patterns leave out.
var numbers = regexp.MustCompile(`\[\d+\]`)

func (r *rules) of(step string) string {
	for i, re := range r.steps {
		if re.MatchString(step) {
			r.used[i] = true
			return r.follow[i]
		}
	}
	return ""
}

func (r *rules) allow(step, line string) bool {
	if r == nil {
		return false
	}
	found := false
	line = numbers.ReplaceAllString(line, "")
	for i, re := range r.steps {
		if re.MatchString(step) && r.lines[i].MatchString(line) {
			r.used[i], found = true, true
		}
	}
	return found
}

func (r *rules) unused(s *script) {
	for i, used := range r.used {
		if !used {
			s.t.Errorf("not needed any more: %s", r.text[i])
		}
	}
}

// subtract returns the lines of a that b does not have, each as often as it is
// missing.
func subtract(a, b []string) []string {
	count := map[string]int{}
	for _, line := range b {
		count[line]++
	}
	var left []string
	for _, line := range a {
		if count[line] > 0 {
			count[line]--
			continue
		}
		left = append(left, line)
	}
	return left
}
