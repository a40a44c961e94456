package clients

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/quirelog/quire/conformance/peer"
	"github.com/twmb/franz-go/pkg/kmsg"
)

const (
	consumerGroups      = "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand"
	toolPatience        = "60000" // ms; of itself kafka-consumer-groups waits for 5 s, which a JVM takes to start on a busy machine
	consumerPerformance = "org.apache.kafka.tools.ConsumerPerformance"
)

// groupProtocols are the values of group.protocol.
var groupProtocols = []string{"classic", "consumer"}

// consoleGroup reads count records with kafka-console-consumer as a member of
// a group, and returns the values.
func (g generation) consoleGroup(t *testing.T, group, topic, protocol string, count int) []string {
	t.Helper()
	option := "--consumer-property"
	if g.set.Name == peer.Tools4.Name {
		option = "--command-property"
	}
	out := g.run(t, "", consoleConsumer, "--topic", topic, "--group", group, "--from-beginning", "--max-messages", strconv.Itoa(count),
		"--timeout-ms", strconv.FormatInt(stepTimeout.Milliseconds(), 10), option, "group.protocol="+protocol)
	values := strings.Fields(out)
	slices.Sort(values)
	return values
}

// table parses a table of the tool by the names of its columns. What is printed
// before and after it is dropped.
func table(out string, columns ...string) []map[string]string {
	var rows []map[string]string
	var header []string
	for line := range strings.Lines(out) {
		fields := strings.Fields(line)
		switch {
		case len(fields) > 0 && fields[0] == columns[0]:
			header = fields
		case header != nil && len(fields) >= len(columns) && len(fields) <= len(header):
			row := map[string]string{}
			for i, f := range fields {
				row[header[i]] = f
			}
			rows = append(rows, row)
		}
	}
	return rows
}

// offsetsOf returns a column of the description of a group's offsets by
// partition.
func offsetsOf(t *testing.T, out, topic, column string) map[string]string {
	t.Helper()
	offsets := map[string]string{}
	for _, row := range table(out, "GROUP", "TOPIC", "PARTITION") {
		if row["TOPIC"] == topic {
			offsets[row["PARTITION"]] = row[column]
		}
	}
	return offsets
}

func mustBe(t *testing.T, what string, got any, want string) {
	t.Helper()
	if s := fmt.Sprint(got); s != want {
		t.Errorf("%s: %s, want %s", what, s, want)
	}
}

// A member that kafka-console-consumer is commits what it read when it ends,
// and the next one goes on behind it, whatever protocol either speaks.
func TestJavaConsoleGroup(t *testing.T) {
	t.Parallel()
	eachGeneration(t, func(t *testing.T, g generation) {
		for _, protocol := range groupProtocols {
			if g.set.Name == peer.Tools3.Name && protocol == "consumer" && !full {
				continue // there it is a preview
			}
			t.Run(protocol, func(t *testing.T) {
				t.Parallel()
				s, group := newStream(t, 2), topicName(t)
				s.grow(t, 3)
				mustBe(t, "values", g.consoleGroup(t, group, s.topic, protocol, 6), "[0 0 1 1 2 2]")
				mustBe(t, "committed", committedOffsets(t, admin(t), group, s.topic), "map[0:3 1:3]")
				s.grow(t, 2)
				mustBe(t, "values", g.consoleGroup(t, group, s.topic, protocol, 4), "[3 3 4 4]")
				mustBe(t, "committed", committedOffsets(t, admin(t), group, s.topic), "map[0:5 1:5]")
			})
		}
	})
}

func TestJavaConsumerPerformance(t *testing.T) {
	t.Parallel()
	eachGeneration(t, func(t *testing.T, g generation) {
		const each = 5000
		s, group := newStream(t, 2), topicName(t)
		s.grow(t, each)
		option := "--messages"
		if g.set.Name == peer.Tools4.Name {
			option = "--num-records"
		}
		out := g.run(t, "", consumerPerformance, "--topic", s.topic, "--group", group, "--hide-header", option, strconv.Itoa(2*each))
		lines := strings.Split(strings.TrimSpace(out), "\n")
		fields := strings.Split(lines[len(lines)-1], ", ")
		const consumedRecords = 4 // start, end, MB, MB/s, records, ...
		if len(fields) <= consumedRecords || fields[consumedRecords] != strconv.Itoa(2*each) {
			t.Errorf("the tool printed\n%s", out)
		}
		mustBe(t, "committed", committedOffsets(t, admin(t), group, s.topic), fmt.Sprintf("map[0:%d 1:%[1]d]", each))
	})
}

// kafka-consumer-groups on groups of both protocols, with members and without.
func TestJavaConsumerGroups(t *testing.T) {
	t.Parallel()
	eachGeneration(t, func(t *testing.T, g generation) {
		for _, protocol := range groupProtocols {
			if g.set.Name == peer.Tools3.Name && protocol == "consumer" && !full {
				continue
			}
			t.Run(protocol, func(t *testing.T) {
				t.Parallel()
				g.administerGroup(t, protocol)
			})
		}
	})
}

func (g generation) administerGroup(t *testing.T, protocol string) {
	kind, assignor := "franz-go/classic/range", "range"
	if protocol == "consumer" {
		kind, assignor = "franz-go/consumer/uniform", "uniform"
	}
	s, group := newStream(t, 2), topicName(t)
	s.grow(t, 10)
	run := func(args ...string) string {
		t.Helper()
		return g.run(t, "", consumerGroups, append(args, "--group", group, "--timeout", toolPatience)...)
	}
	m := kindNamed(t, kind).join(t, group, s.topic, "")
	s.awaitRead(t, group, 0, m)

	out := run("--describe", "--members", "--verbose")
	members := table(out, "GROUP", "CONSUMER-ID", "HOST")
	if len(members) != 1 || members[0]["GROUP"] != group || members[0]["HOST"] != "/127.0.0.1" || members[0]["CLIENT-ID"] != "kgo" {
		t.Errorf("--members printed\n%s", out)
	}
	mustContain(t, out, "0,1")
	out = run("--describe", "--state")
	mustContain(t, out, group, broker.Addr(), assignor, "Stable")
	out = run("--describe")
	mustBe(t, "offsets", offsetsOf(t, out, s.topic, "CURRENT-OFFSET"), "map[0:10 1:10]")
	mustBe(t, "lag", offsetsOf(t, out, s.topic, "LAG"), "map[0:0 1:0]")
	refused, err := g.fails(t, consumerGroups, "--reset-offsets", "--to-earliest", "--topic", s.topic, "--execute", "--group", group, "--timeout", toolPatience)
	mustContain(t, refused+fmt.Sprint(err), "Stable")
	refused, err = g.fails(t, consumerGroups, "--delete", "--group", group, "--timeout", toolPatience)
	mustContain(t, refused+fmt.Sprint(err), "GroupNotEmptyException")
	mustBe(t, "committed", committedOffsets(t, admin(t), group, s.topic), "map[0:10 1:10]")

	mustLeave(t, m)
	awaitState(t, group, "Empty")
	listed := table(g.run(t, "", consumerGroups, "--list", "--state", "--timeout", toolPatience), "GROUP", "STATE")
	if !slices.ContainsFunc(listed, func(row map[string]string) bool { return row["GROUP"] == group && row["STATE"] == "Empty" }) {
		t.Errorf("--list --state printed %v", listed)
	}
	for _, reset := range []struct{ args, want string }{
		{"--to-earliest --dry-run", "map[0:10 1:10]"},
		{"--to-earliest --execute", "map[0:0 1:0]"},
		{"--shift-by 4 --execute", "map[0:4 1:4]"},
		{"--to-latest --execute", "map[0:10 1:10]"},
		{"--to-offset 7 --execute", "map[0:7 1:7]"},
	} {
		if !full && strings.HasPrefix(reset.args, "--to-") && reset.args != "--to-earliest --execute" {
			continue
		}
		run(append([]string{"--reset-offsets", "--topic", s.topic}, strings.Fields(reset.args)...)...)
		mustBe(t, reset.args, committedOffsets(t, admin(t), group, s.topic), reset.want)
	}
	run("--delete-offsets", "--topic", s.topic+":1")
	committed := committedOffsets(t, admin(t), group, s.topic)
	if _, left := committed[1]; left || len(committed) != 1 {
		t.Errorf("after --delete-offsets of partition 1: %v", committed)
	}
	mustContain(t, run("--delete"), "successful")
	awaitGone(t, group)
}

// kafka-configs of 4.x on groups: what it sets is told to the members.
func TestJavaGroupConfigs(t *testing.T) {
	t.Parallel()
	g, group := generations["4.3.1"], topicName(t)
	configs := func(args ...string) []string { return append([]string{"--entity-type", "groups"}, args...) }
	g.run(t, "", configCommand, configs("--entity-name", group, "--alter", "--add-config", "consumer.session.timeout.ms=50000,consumer.heartbeat.interval.ms=6000")...)
	mustContain(t, g.run(t, "", configCommand, configs("--entity-name", group, "--describe")...), "Dynamic configs for group "+group+" are:",
		"consumer.session.timeout.ms=50000", "DYNAMIC_GROUP_CONFIG:consumer.heartbeat.interval.ms=6000")
	join := kmsg.NewPtrConsumerGroupHeartbeatRequest()
	join.Group, join.MemberID, join.RebalanceTimeoutMillis = group, "member", 60_000
	join.SubscribedTopicNames, join.Topics = []string{newTopic(t, 1)}, []kmsg.ConsumerGroupHeartbeatRequestTopic{}
	awaitCoordinator(t, group)
	resp, err := dial(t).Call(step(t), join, 1)
	need(t, err)
	if told := resp.(*kmsg.ConsumerGroupHeartbeatResponse); told.ErrorCode != 0 || told.HeartbeatIntervalMillis != 6000 {
		t.Errorf("the member is told %+v", told)
	}
	if !full {
		return
	}
	out, err := g.fails(t, configCommand, configs("--entity-name", group, "--alter", "--add-config", "consumer.session.timeout.ms=1")...)
	mustContain(t, out+fmt.Sprint(err), "InvalidConfigurationException")
	g.run(t, "", configCommand, configs("--entity-name", group, "--alter", "--delete-config", "consumer.session.timeout.ms,consumer.heartbeat.interval.ms")...)
	if out := g.run(t, "", configCommand, configs("--entity-name", group, "--describe")...); strings.Contains(out, "DYNAMIC_GROUP_CONFIG") {
		t.Errorf("after --delete-config it has\n%s", out)
	}
}

// fails runs a tool that refuses, and returns what it printed. Some of them end
// with status 0 all the same.
func (g generation) fails(t *testing.T, class string, args ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*stepTimeout)
	defer cancel()
	cmd, err := peer.ToolCommand(ctx, g.set, peer.QuickJVM, class, append([]string{"--bootstrap-server", broker.Addr()}, args...)...)
	need(t, err)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func awaitGone(t *testing.T, group string) {
	t.Helper()
	settled(t, group+" is not listed", func() bool {
		listed, err := admin(t).ListGroups(step(t))
		if err != nil {
			t.Fatal(err)
		}
		_, found := listed[group]
		return !found
	})
}
