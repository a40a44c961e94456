package main

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/twmb/franz-go/pkg/kadm"
)

// The file of group export, and what group import reads. Version grows when a
// reader of the old one would misread the new one.
const (
	groupsFormat        = "quire-groups"
	groupsFormatVersion = 1
	maxGroupsFileBytes  = 512 << 20
)

type groupsFile struct {
	Format  string          `json:"format"`
	Version int             `json:"version"`
	Groups  []exportedGroup `json:"groups"`
}

// exportedGroup is a group with what it has committed. Type, ProtocolType and
// State are for people: importing makes an empty group, and the members that
// come next decide the rest.
type exportedGroup struct {
	Group        string          `json:"group"`
	Type         string          `json:"type,omitempty"`
	ProtocolType string          `json:"protocolType,omitempty"`
	State        string          `json:"state,omitempty"`
	Topics       []exportedTopic `json:"topics"`
}

// exportedTopic has the topic's id, in base64 as Kafka's tools print it, to tell
// whether leader epochs mean anything where it is imported.
type exportedTopic struct {
	Topic      string              `json:"topic"`
	TopicID    string              `json:"topicId,omitempty"`
	Partitions []exportedPartition `json:"partitions"`
}

type exportedPartition struct {
	Partition      *int32 `json:"partition"`             // a pointer to see that it is there
	Offset         *int64 `json:"offset"`                // likewise
	LeaderEpoch    *int32 `json:"leaderEpoch,omitempty"` // nil: the commit had none
	Metadata       string `json:"metadata,omitempty"`
	MetadataBase64 []byte `json:"metadataBase64,omitempty"` // in the place of metadata that is no text
}

// exportGroup puts one group in the form of the file.
func exportGroup(d *groupDescription, offsets []kadm.Offset, topics kadm.TopicDetails) exportedGroup {
	g := exportedGroup{Group: d.Group, Type: d.Type, ProtocolType: d.ProtocolType, State: d.State, Topics: []exportedTopic{}}
	for i := range offsets {
		o := &offsets[i]
		if len(g.Topics) == 0 || g.Topics[len(g.Topics)-1].Topic != o.Topic {
			g.Topics = append(g.Topics, exportedTopic{Topic: o.Topic, TopicID: topicIDText(topics[o.Topic].ID)})
		}
		p := exportedPartition{Partition: &o.Partition, Offset: &o.At}
		if o.LeaderEpoch >= 0 {
			p.LeaderEpoch = &o.LeaderEpoch
		}
		if utf8.ValidString(o.Metadata) {
			p.Metadata = o.Metadata
		} else {
			p.MetadataBase64 = []byte(o.Metadata)
		}
		t := &g.Topics[len(g.Topics)-1]
		t.Partitions = append(t.Partitions, p)
	}
	return g
}

// topicIDText is "" for no id, which servers before Kafka 2.8 do not have.
func topicIDText(id kadm.TopicID) string {
	if id == (kadm.TopicID{}) {
		return ""
	}
	return base64.RawURLEncoding.EncodeToString(id[:])
}

// readGroupsFile reads the file name, "-" for in.
func readGroupsFile(name string, in io.Reader) (*groupsFile, error) {
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return nil, fmt.Errorf("%s cannot be read: %w", name, unwrapPath(err))
		}
		defer f.Close()
		in = f
	}
	text, err := io.ReadAll(io.LimitReader(in, maxGroupsFileBytes+1))
	if err != nil {
		return nil, fmt.Errorf("%s cannot be read: %w", name, unwrapPath(err))
	}
	if len(text) > maxGroupsFileBytes {
		return nil, fmt.Errorf("%s is larger than %d bytes: export fewer groups at a time", name, maxGroupsFileBytes)
	}
	file, err := parseGroupsFile(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return file, nil
}

// parseGroupsFile decodes and checks a file. Errors name the field. Fields that
// are not known are refused: a mistyped one would be a lost one.
func parseGroupsFile(text []byte) (*groupsFile, error) {
	var head struct {
		Format  any `json:"format"`
		Version any `json:"version"`
	}
	if err := json.Unmarshal(text, &head); err != nil {
		return nil, explainJSON(text, 0, err)
	}
	if head.Format != groupsFormat {
		return nil, fmt.Errorf("format: expected %q; this is not a file of quire group export", groupsFormat)
	}
	switch version, ok := head.Version.(float64); {
	case !ok || version < 1 || version != math.Trunc(version):
		return nil, errors.New("version: expected a number from 1")
	case version > groupsFormatVersion:
		return nil, fmt.Errorf("version: %v was written by a newer quire; this one reads %d", version, groupsFormatVersion)
	}
	var file groupsFile
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&file); err != nil {
		return nil, explainJSON(text, d.InputOffset(), err)
	}
	return &file, file.check()
}

// explainJSON adds the line to an error of the decoder, and the field where it
// knows it. at is where the decoder was.
func explainJSON(text []byte, at int64, err error) error {
	var syntax *json.SyntaxError
	var value *json.UnmarshalTypeError
	switch {
	case errors.As(err, &syntax):
		return fmt.Errorf("line %d: not JSON: %w", lineOf(text, syntax.Offset), err)
	case errors.As(err, &value):
		field := value.Field
		if field == "" {
			field = "the file"
		}
		return fmt.Errorf("line %d: %s: expected %s, found %s", lineOf(text, value.Offset), field, jsonKinds[value.Type.Kind().String()], value.Value)
	}
	if errors.As(err, new(base64.CorruptInputError)) {
		return fmt.Errorf("line %d: metadataBase64: %w", lineOf(text, at), err)
	}
	return fmt.Errorf("line %d: %s", lineOf(text, at), strings.TrimPrefix(err.Error(), "json: "))
}

var jsonKinds = map[string]string{
	"int": "a whole number", "int32": "a whole number of 32 bits", "int64": "a whole number of 64 bits",
	"string": "a text", "slice": "a list", "struct": "an object", "uint8": "base64",
}

func lineOf(text []byte, offset int64) int {
	return 1 + bytes.Count(text[:min(offset, int64(len(text)))], []byte("\n"))
}

// check finds what types cannot say. It visits in the order of the file.
func (f *groupsFile) check() error {
	if f.Groups == nil {
		return errors.New("groups: missing")
	}
	groups := map[string]bool{}
	for i := range f.Groups {
		g := &f.Groups[i]
		at := fmt.Sprintf("groups[%d]", i)
		switch {
		case g.Group == "":
			return fmt.Errorf("%s.group: missing or empty", at)
		case groups[g.Group]:
			return fmt.Errorf("%s.group: %q is there a second time", at, g.Group)
		}
		groups[g.Group] = true
		topics := map[string]bool{}
		for j := range g.Topics {
			t := &g.Topics[j]
			at := fmt.Sprintf("%s.topics[%d]", at, j)
			switch {
			case t.Topic == "":
				return fmt.Errorf("%s.topic: missing or empty", at)
			case topics[t.Topic]:
				return fmt.Errorf("%s.topic: %q is there a second time in group %q", at, t.Topic, g.Group)
			}
			topics[t.Topic] = true
			if id, err := base64.RawURLEncoding.DecodeString(t.TopicID); err != nil || len(id) != 0 && len(id) != 16 {
				return fmt.Errorf("%s.topicId: %q is not the id of a topic", at, t.TopicID)
			}
			if err := t.checkPartitions(at); err != nil {
				return err
			}
		}
	}
	return nil
}

func (t *exportedTopic) checkPartitions(at string) error {
	seen := map[int32]bool{}
	for i := range t.Partitions {
		p := &t.Partitions[i]
		at := fmt.Sprintf("%s.partitions[%d]", at, i)
		switch {
		case p.Partition == nil:
			return fmt.Errorf("%s.partition: missing", at)
		case *p.Partition < 0:
			return fmt.Errorf("%s.partition: %d is negative", at, *p.Partition)
		case seen[*p.Partition]:
			return fmt.Errorf("%s.partition: %d is there a second time in topic %q", at, *p.Partition, t.Topic)
		case p.Offset == nil:
			return fmt.Errorf("%s.offset: missing", at)
		case *p.Offset < 0:
			return fmt.Errorf("%s.offset: %d is negative", at, *p.Offset)
		case p.LeaderEpoch != nil && *p.LeaderEpoch < 0:
			return fmt.Errorf("%s.leaderEpoch: %d is negative; leave it out where there is none", at, *p.LeaderEpoch)
		case p.Metadata != "" && p.MetadataBase64 != nil:
			return fmt.Errorf("%s.metadataBase64: there is metadata too", at)
		}
		seen[*p.Partition] = true
	}
	return nil
}

// only keeps the groups that are named; all if none is.
func (f *groupsFile) only(names []string) error {
	for _, name := range names {
		if !slices.ContainsFunc(f.Groups, func(g exportedGroup) bool { return g.Group == name }) {
			return fmt.Errorf("the file has no group %s", cell(name))
		}
	}
	if len(names) > 0 {
		f.Groups = slices.DeleteFunc(f.Groups, func(g exportedGroup) bool { return !slices.Contains(names, g.Group) })
	}
	return nil
}
