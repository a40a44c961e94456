package clients

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/quirelog/quire/conformance/wire"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// updateAnswers writes down what Apache Kafka answers; see the transcripts in
// testdata. It needs QUIRE_CONFORMANCE_TARGET=kafka.
var updateAnswers = flag.Bool("update-answers", false, "write the transcripts of testdata anew, from Apache Kafka's answers")

// A transcript is the answers of a server to a script of requests, field by
// field, with everything that differs from run to run replaced by a name. A
// file of testdata holds Apache Kafka's; another server's answers are compared
// with it, and Kafka's own are when it is the target, so that the file stays
// true.
type transcript struct {
	t       *testing.T
	conn    *wire.Conn
	names   *strings.Replacer
	renamed []string // pairs for names
	ids     map[[16]byte]string
	hidden  func(path string, element reflect.Value) bool // elements of lists that belong to others
	answers []answer
}

type answer struct {
	step  string // "situation: request vN"
	resp  any    // pointer to a response
	lines []string
}

// render makes the lines of every answer, when all names are known.
func (s *transcript) render() {
	for i, a := range s.answers {
		if a.resp != nil {
			s.answers[i].lines = s.fields("", reflect.ValueOf(a.resp).Elem())
		}
	}
}

// name makes a value that differs from run to run appear as a fixed one.
func (s *transcript) name(value, as string) {
	if value == "" {
		s.t.Fatalf("no value for %s", as)
	}
	s.renamed = append(s.renamed, value, as)
	s.names = strings.NewReplacer(s.renamed...)
}

// ask sends one request and notes the answer.
func (s *transcript) ask(situation string, req kmsg.Request, version int16) kmsg.Response {
	s.t.Helper()
	name := fmt.Sprintf("%s: %s v%d", situation, kmsg.NameForKey(req.Key()), version)
	resp, err := s.conn.Call(step(s.t), req, version)
	if err != nil {
		s.t.Fatalf("%s: %v", name, err)
	}
	s.note(name, resp)
	return resp
}

// askAll asks at every version of a range.
func (s *transcript) askAll(situation string, first, last int16, build func(version int16) kmsg.Request) {
	s.t.Helper()
	for v := first; v <= last; v++ {
		s.ask(situation, build(v), v)
	}
}

func (s *transcript) note(step string, resp kmsg.Response) {
	s.answers = append(s.answers, answer{step: step, resp: resp})
}

// timing are the fields that no two runs need to agree on.
var timing = []string{"Version", "ThrottleMillis", "UnknownTags"}

// freeText are fields whose words are each server's own: only whether there are
// any is compared.
var freeText = []string{"ErrorMessage", "ErrMsg"}

func (s *transcript) fields(path string, v reflect.Value) []string {
	switch v.Kind() {
	case reflect.Struct:
		var lines []string
		for i := range v.NumField() {
			field := v.Type().Field(i).Name
			if slices.Contains(timing, field) {
				continue
			}
			lines = append(lines, s.fields(strings.TrimPrefix(path+"."+field, "."), v.Field(i))...)
		}
		return lines
	case reflect.Pointer:
		if v.IsNil() {
			return []string{path + " = null"}
		}
		return s.fields(path, v.Elem())
	case reflect.Slice:
		if v.Type().Elem().Kind() == reflect.Uint8 {
			return []string{path + " = " + s.names.Replace(strconv.Quote(string(v.Bytes())))}
		}
		if v.IsNil() || v.Len() == 0 {
			return []string{path + " = []"}
		}
		// The order of lists is a server's own.
		var elements [][]string
		for i := range v.Len() {
			if s.hidden == nil || !s.hidden(path, v.Index(i)) {
				elements = append(elements, s.fields(path, v.Index(i)))
			}
		}
		slices.SortFunc(elements, func(a, b []string) int { return slices.Compare(a, b) })
		return slices.Concat(elements...)
	case reflect.Array:
		id := [16]byte(v.Bytes())
		if id == ([16]byte{}) {
			return []string{path + " = zero"}
		}
		return []string{path + " = id of " + s.ids[id]}
	case reflect.String:
		text := v.String()
		if i := strings.LastIndexByte(path, '.'); slices.Contains(freeText, path[i+1:]) && text != "" {
			return []string{path + " = some text"}
		}
		return []string{path + " = " + s.names.Replace(strconv.Quote(text))}
	default:
		return []string{s.names.Replace(fmt.Sprintf("%s = %v", path, v.Interface()))}
	}
}

// A difference from Kafka's answers that is meant: in which steps, in which
// lines of either side, and why. Both patterns match the whole of a text.
type difference struct {
	steps, lines string
	reason       string
}

// compare holds the answers against the file, but for differences that are
// meant. One that does not occur any more is a failure too.
func (s *transcript) compare(file string, meant []difference) {
	s.t.Helper()
	s.render()
	path := filepath.Join("testdata", file)
	if *updateAnswers {
		if !onKafka {
			s.t.Fatal("-update-answers writes what Apache Kafka answers: set QUIRE_CONFORMANCE_TARGET=kafka")
		}
		if err := os.WriteFile(path, s.text(), 0o644); err != nil {
			s.t.Fatal(err)
		}
		return
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		s.t.Fatal(err)
	}
	want := parseTranscript(string(raw))
	used := make([]bool, len(meant))
	allowed := func(step, line string) bool {
		found := false
		for i, d := range meant {
			if regexp.MustCompile("^(?:"+d.steps+")$").MatchString(step) && regexp.MustCompile("^(?:"+d.lines+")$").MatchString(line) {
				used[i], found = true, true
			}
		}
		return found && !onKafka
	}
	for _, got := range s.answers {
		lines, known := want[got.step]
		delete(want, got.step)
		if !known {
			s.t.Errorf("%s: not in %s", got.step, path)
			continue
		}
		missing, extra := subtract(lines, got.lines), subtract(got.lines, lines)
		missing = slices.DeleteFunc(missing, func(line string) bool { return allowed(got.step, line) })
		extra = slices.DeleteFunc(extra, func(line string) bool { return allowed(got.step, line) })
		if len(missing)+len(extra) > 0 {
			s.t.Errorf("%s\n\tKafka: %s\n\tgot:   %s", got.step, strings.Join(missing, "\n\t       "), strings.Join(extra, "\n\t       "))
		}
	}
	for step := range want {
		s.t.Errorf("%s: in %s, but was not asked", step, path)
	}
	for i, d := range meant {
		if !used[i] && !onKafka {
			s.t.Errorf("the difference of %q in %q is not there any more: %s", d.lines, d.steps, d.reason)
		}
	}
}

// text writes an answer that equals the one before it as a further step of
// that.
func (s *transcript) text() []byte {
	var b strings.Builder
	for i, a := range s.answers {
		fmt.Fprintf(&b, "# %s\n", a.step)
		if i+1 < len(s.answers) && slices.Equal(a.lines, s.answers[i+1].lines) {
			continue
		}
		for _, line := range a.lines {
			fmt.Fprintf(&b, "%s\n", line)
		}
		b.WriteByte('\n')
	}
	return []byte(b.String())
}

func parseTranscript(text string) map[string][]string {
	answers := map[string][]string{}
	for block := range strings.SplitSeq(strings.TrimSpace(text), "\n\n") {
		var steps, lines []string
		for line := range strings.SplitSeq(block, "\n") {
			if step, ok := strings.CutPrefix(line, "# "); ok {
				steps = append(steps, step)
			} else {
				lines = append(lines, line)
			}
		}
		for _, step := range steps {
			answers[step] = lines
		}
	}
	return answers
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
