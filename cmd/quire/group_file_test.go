package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
)

const (
	idOfTopic1 = "AQAAAAAAAAAAAAAAAAAAAA"
	idOfTopic2 = "AgAAAAAAAAAAAAAAAAAAAA"
)

// fileOf puts groups in a file's frame.
func fileOf(groups string) string {
	return `{"format":"quire-groups","version":1,"groups":[` + groups + `]}`
}

// TestExportGroup holds the format to the letter: other versions have to read it.
func TestExportGroup(t *testing.T) {
	d := &groupDescription{Group: "g", Type: classicType, ProtocolType: "consumer", State: emptyState}
	offsets := []kadm.Offset{
		{Topic: "gone", Partition: 3, At: 0, LeaderEpoch: -1, Metadata: "a\xff"},
		{Topic: "t", Partition: 0, At: 5, LeaderEpoch: 0},
		{Topic: "t", Partition: 1, At: 6, LeaderEpoch: 2, Metadata: "<m>"},
	}
	g := exportGroup(d, offsets, kadm.TopicDetails{"t": topicOf("t", 1, 2)})
	var out bytes.Buffer
	if err := printJSON(&out, &groupsFile{Format: groupsFormat, Version: groupsFormatVersion, Groups: []exportedGroup{g}}); err != nil {
		t.Fatal(err)
	}
	want := fileOf(`{"group":"g","type":"classic","protocolType":"consumer","state":"Empty","topics":[` +
		`{"topic":"gone","partitions":[{"partition":3,"offset":0,"metadataBase64":"Yf8="}]},` +
		`{"topic":"t","topicId":"` + idOfTopic1 + `","partitions":[{"partition":0,"offset":5,"leaderEpoch":0},{"partition":1,"offset":6,"leaderEpoch":2,"metadata":"<m>"}]}]}`)
	var compact bytes.Buffer
	if err := json.Compact(&compact, out.Bytes()); err != nil || compact.String() != want {
		t.Fatalf("got %s, %v, want %s", &compact, err, want)
	}
	back, err := parseGroupsFile(out.Bytes())
	if err != nil || !reflect.DeepEqual(back.Groups[0], g) {
		t.Errorf("read back: %+v, %v", back, err)
	}
}

func TestParseGroupsFileErrors(t *testing.T) {
	topic := func(partitions string) string {
		return fileOf(`{"group":"g","topics":[{"topic":"t","partitions":[` + partitions + `]}]}`)
	}
	for text, want := range map[string]string{
		``:            "line 1: not JSON: unexpected end of JSON input",
		"{\n\"a\": x": "line 2: not JSON: invalid character 'x'",
		`[]`:          "line 1: the file: expected an object, found array",
		`{}`:          `format: expected "quire-groups"`,
		`{"format":"other","version":1,"groups":[]}`:                                  `format: expected "quire-groups"`,
		`{"format":"quire-groups","groups":[]}`:                                       "version: expected a number from 1",
		`{"format":"quire-groups","version":"1","groups":[]}`:                         "version: expected a number from 1",
		`{"format":"quire-groups","version":1.5,"groups":[]}`:                         "version: expected a number from 1",
		`{"format":"quire-groups","version":0,"groups":[]}`:                           "version: expected a number from 1",
		`{"format":"quire-groups","version":2,"groups":[]}`:                           "version: 2 was written by a newer quire; this one reads 1",
		`{"format":"quire-groups","version":1}`:                                       "groups: missing",
		`{"format":"quire-groups","version":1,"groups":[]} x`:                         "line 1: not JSON: invalid character 'x'",
		"{\"format\":\"quire-groups\",\n\"version\":1,\"groups\":[],\n\"gruops\":[]}": `line 3: unknown field "gruops"`,
		fileOf(`null`):                                                             "groups[0].group: missing or empty",
		fileOf(`{"topics":[]}`):                                                    "groups[0].group: missing or empty",
		fileOf(`{"group":"g"},{"group":"g"}`):                                      `groups[1].group: "g" is there a second time`,
		fileOf(`{"group":5}`):                                                      "line 1: groups.group: expected a text, found number",
		fileOf(`{"group":"g","topics":{}}`):                                        "line 1: groups.topics: expected a list, found object",
		fileOf(`{"group":"g","topics":[{"partitions":[]}]}`):                       "groups[0].topics[0].topic: missing or empty",
		fileOf(`{"group":"g","topics":[{"topic":"t"},{"topic":"t"}]}`):             `groups[0].topics[1].topic: "t" is there a second time in group "g"`,
		fileOf(`{"group":"g","topics":[{"topic":"t","topicId":"AQ"}]}`):            `groups[0].topics[0].topicId: "AQ" is not the id of a topic`,
		fileOf(`{"group":"g","topics":[{"topic":"t","topicId":"!"}]}`):             `groups[0].topics[0].topicId: "!" is not the id of a topic`,
		topic(`{"offset":1}`):                                                      "groups[0].topics[0].partitions[0].partition: missing",
		topic(`{"partition":-1,"offset":1}`):                                       "groups[0].topics[0].partitions[0].partition: -1 is negative",
		topic(`{"partition":1,"offset":1},{"partition":1,"offset":2}`):             `groups[0].topics[0].partitions[1].partition: 1 is there a second time in topic "t"`,
		topic(`{"partition":0}`):                                                   "groups[0].topics[0].partitions[0].offset: missing",
		topic(`{"partition":0,"ofset":5}`):                                         `line 1: unknown field "ofset"`,
		topic(`{"partition":0,"offset":-5}`):                                       "groups[0].topics[0].partitions[0].offset: -5 is negative",
		topic(`{"partition":0,"offset":"5"}`):                                      "line 1: groups.topics.partitions.offset: expected a whole number of 64 bits, found string",
		topic(`{"partition":0,"offset":5.5}`):                                      "line 1: groups.topics.partitions.offset: expected a whole number of 64 bits, found number 5.5",
		topic(`{"partition":3000000000,"offset":5}`):                               "line 1: groups.topics.partitions.partition: expected a whole number of 32 bits, found number 3000000000",
		topic(`{"partition":0,"offset":5,"leaderEpoch":-1}`):                       "groups[0].topics[0].partitions[0].leaderEpoch: -1 is negative; leave it out where there is none",
		topic(`{"partition":0,"offset":5,"metadata":"a","metadataBase64":"YQ=="}`): "groups[0].topics[0].partitions[0].metadataBase64: there is metadata too",
		topic(`{"partition":0,"offset":5,"metadataBase64":"%"}`):                   "line 1: metadataBase64: illegal base64 data",
	} {
		_, err := parseGroupsFile([]byte(text))
		if err == nil || !strings.HasPrefix(err.Error(), want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s:\n got %v\nwant %s", text, err, want)
		}
	}
}

// FuzzGroupsFile: any bytes give a file or an error, and what is accepted can be
// written and read again.
func FuzzGroupsFile(f *testing.F) {
	f.Add([]byte(fileOf(`{"group":"g","topics":[{"topic":"t","topicId":"` + idOfTopic1 + `","partitions":[{"partition":0,"offset":5,"leaderEpoch":2,"metadata":"m"},{"partition":1,"offset":5,"metadataBase64":"Yf8="}]}]}`)))
	f.Add([]byte(fileOf(`null`)))
	f.Add([]byte(`{"format":"quire-groups","version":1e0,"groups":[]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		file, err := parseGroupsFile(text)
		if err != nil {
			return
		}
		var out bytes.Buffer
		if err := printJSON(&out, file); err != nil {
			t.Fatal(err)
		}
		if _, err := parseGroupsFile(out.Bytes()); err != nil {
			t.Fatalf("%s, written again, is refused: %v", text, err)
		}
	})
}

func TestOnlyGroups(t *testing.T) {
	file := func() *groupsFile {
		return &groupsFile{Groups: []exportedGroup{{Group: "a"}, {Group: "b"}, {Group: "c"}}}
	}
	f := file()
	if err := f.only([]string{"c", "a"}); err != nil || len(f.Groups) != 2 || f.Groups[0].Group != "a" || f.Groups[1].Group != "c" {
		t.Errorf("%+v, %v", f.Groups, err)
	}
	f = file()
	if err := f.only(nil); err != nil || len(f.Groups) != 3 {
		t.Errorf("%+v, %v", f.Groups, err)
	}
	if err := file().only([]string{"x"}); err == nil || err.Error() != "the file has no group x" {
		t.Errorf("%v", err)
	}
}

func TestPlanImport(t *testing.T) {
	for name, c := range map[string]struct {
		file   string
		change func(in *importInput)
		want   string
	}{
		"all": {`{"group":"g","topics":[{"topic":"t","partitions":[{"partition":1,"offset":30,"metadata":"m"},{"partition":0,"offset":20,"metadataBase64":"Yf8="}]}]}`, nil,
			`g/t/1: -1>30 epoch -1 "m"; g/t/0: 50>20 epoch -1 "a\xff"`},
		"epoch of the same topic": {`{"group":"g","topics":[{"topic":"t","topicId":"` + idOfTopic1 + `","partitions":[{"partition":0,"offset":20,"leaderEpoch":7}]}]}`, nil,
			`g/t/0: 50>20 epoch 7 ""`},
		"epoch of another topic": {`{"group":"g","topics":[{"topic":"t","topicId":"` + idOfTopic2 + `","partitions":[{"partition":0,"offset":20,"leaderEpoch":7}]}]}`, nil,
			`g/t/0: 50>20 epoch -1 ""`},
		"epoch of who knows which topic": {`{"group":"g","topics":[{"topic":"t","partitions":[{"partition":0,"offset":20,"leaderEpoch":7}]}]}`,
			func(in *importInput) { in.logs.topics["t"] = topicOf("t", 0, 2) },
			`g/t/0: 50>20 epoch -1 ""`},
		"not here": {`{"group":"g","topics":[{"topic":"x","partitions":[{"partition":0,"offset":1}]},{"topic":"t","partitions":[{"partition":2,"offset":1},{"partition":0,"offset":50}]}]}`, nil,
			`g/t/0: 50>50 epoch -1 ""; skipped group g: topic x does not exist here; skipped group g: topic t has no partition 2 here`},
		"beyond the end": {`{"group":"g","topics":[{"topic":"t","partitions":[{"partition":0,"offset":101}]}]}`, nil,
			`g/t/0: 50>101 epoch -1 ""; note group g, topic t partition 0: offset 101 is not in what it holds here, 10 to 100`},
		"active": {`{"group":"h"},{"group":"g","topics":[{"topic":"t","partitions":[{"partition":0,"offset":60}]}]}`,
			func(in *importInput) {
				in.described["h"] = described{groupDescription: groupDescription{State: "Stable"}}
			},
			`g/t/0: 50>60 epoch -1 ""; failed group h has active members: stop them first`},
		"undescribed": {`{"group":"g"}`, func(in *importInput) { in.described["g"] = described{err: errors.New("x")} }, `failed x`},
		"unread":      {`{"group":"g"}`, func(in *importInput) { in.committed["g"] = committed{err: errors.New("x")} }, `failed x`},
	} {
		file, err := parseGroupsFile([]byte(fileOf(c.file)))
		if err != nil {
			t.Fatal(err)
		}
		reset := resetOf(resetRule{})
		in := &importInput{file: file, described: reset.described, committed: reset.committed, logs: reset.logs}
		if c.change != nil {
			c.change(in)
		}
		if got := planText(planImport(in), nil); !strings.HasPrefix(got, c.want) || strings.Count(got, "g/t/") != strings.Count(c.want, "g/t/") {
			t.Errorf("%s:\n got %s\nwant %s", name, got, c.want)
		}
	}
}

// TestReadmeGroupsFile: the file in the README is one that is read.
func TestReadmeGroupsFile(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(root, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(text), `    {"format": "quire-groups"`)
	example, _, ok2 := strings.Cut(rest, "\n\n")
	if !ok || !ok2 {
		t.Fatal("README.md shows no file of groups")
	}
	file, err := parseGroupsFile([]byte(`{"format": "quire-groups"` + example))
	if err != nil || len(file.Groups) != 1 || *file.Groups[0].Topics[0].Partitions[0].Offset != 4711 {
		t.Errorf("%+v, %v", file, err)
	}
}

// TestReadmeGroupCommands: the command lines of quire group in the README are
// ones that this program takes: each gets as far as the server or the file.
func TestReadmeGroupCommands(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(root, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	t.Chdir(t.TempDir())
	found := 0
	for line := range strings.Lines(string(text)) {
		args, ok := strings.CutPrefix(line, "    quire group ")
		if !ok {
			continue
		}
		args, _, _ = strings.Cut(args, "#")
		args, _, _ = strings.Cut(args, ">")
		args = strings.ReplaceAll(args, "-b kafka.example.com:9092", "")
		status, out := execute(t, append(append([]string{"group"}, strings.Fields(args)...), "-b", "127.0.0.1:1")...)
		if status != 1 || !strings.Contains(out, "no server at 127.0.0.1:1") && !strings.Contains(out, "groups.json cannot be read") {
			t.Errorf("quire group %s: status %d, %q", args, status, out)
		}
		found++
	}
	if found < 8 {
		t.Errorf("README.md shows %d commands", found)
	}
}
