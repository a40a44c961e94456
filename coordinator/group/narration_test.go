package group

import (
	"bufio"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write what happens into testdata/*.txt as what is expected")

// runStories runs files of stories, whose form TestClassicStories explains. tell
// returns a story with what really happens.
func runStories(t *testing.T, pattern string, tell func(*testing.T, string) string) {
	files, err := filepath.Glob(pattern)
	if err != nil || len(files) == 0 {
		t.Fatalf("no stories: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got := tell(t, string(text))
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if got != string(text) {
				t.Errorf("%s", firstDifference(string(text), got))
			}
		})
	}
}

func firstDifference(want, got string) string {
	w, g := strings.Split(want, "\n"), strings.Split(got, "\n")
	for i := range max(len(w), len(g)) {
		at := func(lines []string) string {
			if i < len(lines) {
				return lines[i]
			}
			return "(the end)"
		}
		if at(w) != at(g) {
			return fmt.Sprintf("line %d:\nwant %s\ngot  %s\n\n%s", i+1, at(w), at(g), got)
		}
	}
	return "equal"
}

// narration is a story with what happens in it.
type narration struct{ out strings.Builder }

// narrate has event do each line: its verb, the word that stands alone, and the
// words of the form key=value.
func (n *narration) narrate(text string, event func(verb, who string, args map[string]string)) string {
	lines := bufio.NewScanner(strings.NewReader(text))
	for lines.Scan() {
		line := lines.Text()
		if strings.HasPrefix(line, "\t") {
			continue
		}
		n.out.WriteString(line + "\n")
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		verb, rest, _ := strings.Cut(line, " ")
		who, args := "", map[string]string{}
		for w := range strings.FieldsSeq(rest) {
			if key, value, ok := strings.Cut(w, "="); ok {
				args[key] = value
			} else {
				who = w
			}
		}
		event(verb, who, args)
	}
	return n.out.String()
}

func (n *narration) say(format string, args ...any) { fmt.Fprintf(&n.out, "\t"+format+"\n", args...) }
