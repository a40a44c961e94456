package main

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
)

func TestGroupCommandLine(t *testing.T) {
	for _, c := range []struct {
		args string
		want string
	}{
		{"group describe", "no group is named: give --group or --all-groups"},
		{"group describe --group g --all-groups", "--group and --all-groups exclude each other"},
		{"group describe --group=", "--group: a group cannot have an empty name"},
		{"group describe --group g --members --state", "--members and --state can't be used together"},
		{"group delete", "no group is named"},
		{"group export", "no group is named"},
		{"group reset-offsets --group g --topic t", "nothing says where to: give --to-earliest,"},
		{"group reset-offsets --group g --to-latest", "no topic is named: give --topic or --all-topics"},
		{"group reset-offsets --group g --to-latest --topic t --all-topics", "--topic and --all-topics exclude each other"},
		{"group reset-offsets --group g --to-latest --to-earliest --topic t", "can't be used together"},
		{"group reset-offsets --group g --to-latest --topic t --dry-run --execute", "can't be used together"},
		{"group reset-offsets --group g --to-latest --topic t:x", `--topic t:x: "x" is not the number of a partition`},
		{"group reset-offsets --group g --shift-by many --topic t", "--shift-by: many is not a whole number"},
		{"group reset-offsets --group g --to-datetime noon --topic t", "--to-datetime noon: expected a time as 2026-01-31T12:00:00.000"},
		{"group reset-offsets --group g --by-duration P1Y --topic t", "--by-duration P1Y: expected a time as P1DT2H3M4S"},
		{"group reset-offsets --group g --by-duration 1000000h --topic t", "after 1970"},
		{"group reset-offsets --group g --from-file absent.csv", "--from-file absent.csv cannot be read: no such file"},
		{"group reset-offsets --group g --from-file absent.csv --topic t", "--topic and --all-topics do not go with it"},
		{"group import absent.json", "absent.json cannot be read: no such file"},
		{"group list -b 127.0.0.1:1", "no server at 127.0.0.1:1: "},
		// A hyphen does not make a number a flag.
		{"group reset-offsets --group g --shift-by -3 --topic t -b 127.0.0.1:1", "no server at 127.0.0.1:1: "},
	} {
		status, out := execute(t, strings.Fields(c.args)...)
		if status != 1 || !strings.Contains(out, c.want) || strings.Count(out, "\n") != 1 {
			t.Errorf("quire %s: status %d, %q; want one line with %q", c.args, status, out, c.want)
		}
	}
}

func ptr[T any](v T) *T { return &v }

// listed makes an answer of ListOffsets.
func listed(topic string, offsets ...int64) kadm.ListedOffsets {
	l := kadm.ListedOffsets{topic: {}}
	for n, o := range offsets {
		l[topic][int32(n)] = kadm.ListedOffset{Topic: topic, Partition: int32(n), Offset: o}
	}
	return l
}

// topicOf makes a topic with n partitions.
func topicOf(name string, id byte, n int) kadm.TopicDetail {
	d := kadm.TopicDetail{Topic: name, ID: kadm.TopicID{id}, Partitions: kadm.PartitionDetails{}}
	for i := range int32(n) {
		d.Partitions[i] = kadm.PartitionDetail{Topic: name, Partition: i}
	}
	return d
}

// TestOffsetRows: what is committed and what is assigned make one list.
func TestOffsetRows(t *testing.T) {
	d := &groupDescription{Members: []groupMember{
		{MemberID: "m1", Host: "/h1", ClientID: "c1", Assignment: []assignedTopic{{"t", []int32{0, 2}}}},
		{MemberID: "m2", Host: "/h2", ClientID: "c2", Assignment: []assignedTopic{{"a", []int32{0}}}},
	}}
	c := &committed{offsets: []kadm.Offset{
		{Topic: "gone", Partition: 0, At: 5, LeaderEpoch: -1},
		{Topic: "t", Partition: 0, At: 3, LeaderEpoch: 7},
		{Topic: "t", Partition: 1, At: 9, LeaderEpoch: -1},
	}}
	ends := listed("t", 10, 4, 6)
	ends["a"] = map[int32]kadm.ListedOffset{0: {Err: kerr.LeaderNotAvailable, Offset: 77}}
	g := &groupWithOffsets{groupDescription{Group: "g\x1b"}, offsetRows(d, c, ends)}

	var out bytes.Buffer
	if err := writeOffsets(&out, g, true); err != nil {
		t.Fatal(err)
	}
	const want = `GROUP    TOPIC  PARTITION  LEADER-EPOCH  CURRENT-OFFSET  LOG-END-OFFSET  LAG  CONSUMER-ID  HOST  CLIENT-ID
"g\x1b"  a      0          -             -               -               -    m2           /h2   c2
"g\x1b"  gone   0          -             5               -               -    -            -     -
"g\x1b"  t      0          7             3               10              7    m1           /h1   c1
"g\x1b"  t      1          -             9               4               -5   -            -     -
"g\x1b"  t      2          -             -               6               -    m1           /h1   c1
`
	if out.String() != want {
		t.Errorf("got\n%swant\n%s", &out, want)
	}
}

func TestWriteMembersAndStates(t *testing.T) {
	groups := []groupDescription{
		{
			Group: "new", Type: consumerType, State: "Reconciling", Assignor: "uniform", Epoch: ptr(int32(4)), AssignmentEpoch: ptr(int32(3)),
			Coordinator: groupNode{1, "127.0.0.1", 9092},
			Members: []groupMember{{
				MemberID: "m", InstanceID: "i", ClientID: "c", Host: "/h", Epoch: ptr(int32(3)),
				Assignment: []assignedTopic{{"a", []int32{0, 1}}, {"b", []int32{0}}}, Target: []assignedTopic{{"a", []int32{0}}},
			}},
		},
		{Group: "old", Type: classicType, State: emptyState, Coordinator: groupNode{2, "h", 1}},
	}
	var out bytes.Buffer
	for i := range groups {
		if err := errors.Join(writeMembers(&out, &groups[i], true), writeMembers(&out, &groups[i], false)); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(writeStates(&out, groups, true), writeStates(&out, groups, false)); err != nil {
		t.Fatal(err)
	}
	const want = `GROUP  CONSUMER-ID  GROUP-INSTANCE-ID  HOST  CLIENT-ID  #PARTITIONS  CURRENT-EPOCH  CURRENT-ASSIGNMENT  TARGET-ASSIGNMENT
new    m            i                  /h    c          3            3              a:0,1;b:0           a:0
GROUP  CONSUMER-ID  GROUP-INSTANCE-ID  HOST  CLIENT-ID  #PARTITIONS
new    m            i                  /h    c          3
GROUP  CONSUMER-ID  GROUP-INSTANCE-ID  HOST  CLIENT-ID  #PARTITIONS  CURRENT-EPOCH  CURRENT-ASSIGNMENT  TARGET-ASSIGNMENT
GROUP  CONSUMER-ID  GROUP-INSTANCE-ID  HOST  CLIENT-ID  #PARTITIONS
GROUP  COORDINATOR (ID)    ASSIGNMENT-STRATEGY  STATE        #MEMBERS  TYPE      GROUP-EPOCH  TARGET-ASSIGNMENT-EPOCH
new    127.0.0.1:9092 (1)  uniform              Reconciling  1         consumer  4            3
old    h:1 (2)             -                    Empty        0         classic   -            -
GROUP  COORDINATOR (ID)    ASSIGNMENT-STRATEGY  STATE        #MEMBERS
new    127.0.0.1:9092 (1)  uniform              Reconciling  1
old    h:1 (2)             -                    Empty        0
`
	if out.String() != want {
		t.Errorf("got\n%swant\n%s", &out, want)
	}
}

func TestOfConsumers(t *testing.T) {
	for g, want := range map[listedGroup]bool{
		{Type: classicType, ProtocolType: "consumer"}:  true,
		{Type: consumerType, ProtocolType: "consumer"}: true,
		{Type: classicType}:                            true, // commits alone
		{Type: classicType, ProtocolType: "connect"}:   false,
		{Type: "share", ProtocolType: "share"}:         false,
	} {
		if g.ofConsumers() != want {
			t.Errorf("%+v: %v", g, !want)
		}
	}
}

// TestExplainGroup: an error is worded once, whatever wraps it.
func TestExplainGroup(t *testing.T) {
	for _, c := range []struct {
		err     error
		message string
		want    string
	}{
		{kerr.NonEmptyGroup, "", "group g has active members: stop them first"},
		{kerr.UnknownMemberID, "", "group g has active members: stop them first"},
		{fmt.Errorf("wrapped: %w", kerr.RebalanceInProgress), "", "group g has active members: stop them first"},
		{kerr.StaleMemberEpoch, "", "group g has active members: stop them first"},
		{kerr.GroupIDNotFound, "some text", "group g does not exist"},
		{kerr.InvalidGroupID, "", "group g: INVALID_GROUP_ID: The configured groupID is invalid"},
		{kerr.GroupAuthorizationFailed, "ask Eve", "group g: GROUP_AUTHORIZATION_FAILED: ask Eve"},
		{errors.New("broken pipe"), "", "group g: broken pipe"},
		{missing("g", errors.New("broken pipe")), "", "group g: broken pipe"},
		{missing("g", nil), "", "group g: the server's answer leaves it out"},
	} {
		if got := explainGroup("g", c.err, c.message); got.Error() != c.want {
			t.Errorf("%v: %q, want %q", c.err, got, c.want)
		}
	}
}

// TestExplainCommit: what is wrong with the group is said once, what is wrong
// with a partition names it.
func TestExplainCommit(t *testing.T) {
	answer := func(n int32, err error) kadm.OffsetResponse {
		return kadm.OffsetResponse{Offset: kadm.Offset{Topic: "t", Partition: n}, Err: err}
	}
	for name, c := range map[string]struct {
		of      int
		answers []kadm.OffsetResponse
		want    string
	}{
		"none":  {of: 2},
		"group": {2, []kadm.OffsetResponse{answer(0, kerr.UnknownMemberID), answer(1, kerr.UnknownMemberID)}, "group g has active members: stop them first"},
		"some":  {2, []kadm.OffsetResponse{answer(1, kerr.CoordinatorNotAvailable)}, "group g, topic t partition 1: COORDINATOR_NOT_AVAILABLE: "},
		"topic": {1, []kadm.OffsetResponse{answer(0, kerr.OffsetMetadataTooLarge)}, "group g, topic t partition 0: OFFSET_METADATA_TOO_LARGE: "},
	} {
		var failed kadm.OffsetResponses
		for _, a := range c.answers {
			failed.Add(a)
		}
		errs := explainCommit("g", c.of, failed)
		if c.want == "" && len(errs) == 0 {
			continue
		}
		if len(errs) != 1 || !strings.HasPrefix(errs[0].Error(), c.want) {
			t.Errorf("%s: %q, want %q", name, errs, c.want)
		}
	}
}

func TestParseScope(t *testing.T) {
	for flags, want := range map[string]string{
		"t":             "map[t:[]] all t",
		"t:0":           "map[t:[0]]",
		"t:0,2 t:2,1":   "map[t:[0 2 1]]",
		"t:0 t":         "map[t:[]] all t",
		"t t:0":         "map[t:[]] all t",
		"a:1 b":         "map[a:[1] b:[]] all b",
		":1":            "--topic :1: expected TOPIC or TOPIC:PARTITION,PARTITION",
		"t:":            `--topic t:: "" is not the number of a partition`,
		"t:1,-2":        `--topic t:1,-2: "-2" is not the number of a partition`,
		"t:99999999999": `--topic t:99999999999: "99999999999" is not the number of a partition`,
	} {
		scope, err := parseScope(strings.Fields(flags))
		got := fmt.Sprint(scope)
		if err != nil {
			got = err.Error()
		}
		for topic, partitions := range scope {
			if partitions == nil {
				got += " all " + topic
			}
		}
		if got != want {
			t.Errorf("%q: %q, want %q", flags, got, want)
		}
	}
}
