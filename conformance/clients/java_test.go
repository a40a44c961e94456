package clients

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/quirelog/quire/conformance/peer"
	"github.com/twmb/franz-go/pkg/kgo"
)

// A generation is one release of Kafka's command line tools: where each lives,
// and what its options are called.
type generation struct {
	set                                 peer.JarSet
	consoleProducer, brokerAPIVersions  string
	producerProps, formatterProps       string
	readerProps, consoleProducerOptions string
}

var generations = map[string]generation{
	"4.3.1": {
		set:                    peer.Tools4,
		consoleProducer:        "org.apache.kafka.tools.ConsoleProducer",
		brokerAPIVersions:      "org.apache.kafka.tools.BrokerApiVersionsCommand",
		producerProps:          "--command-property",
		formatterProps:         "--formatter-property",
		readerProps:            "--reader-property",
		consoleProducerOptions: "--command-property",
	},
	"3.9.1": {
		set:                    peer.Tools3,
		consoleProducer:        "kafka.tools.ConsoleProducer",
		brokerAPIVersions:      "kafka.admin.BrokerApiVersionsCommand",
		producerProps:          "--producer-props",
		formatterProps:         "--property",
		readerProps:            "--property",
		consoleProducerOptions: "--producer-property",
	},
}

// Classes that have the same name in both generations.
const (
	topicCommand        = "org.apache.kafka.tools.TopicCommand"
	configCommand       = "kafka.admin.ConfigCommand"
	getOffsetShell      = "org.apache.kafka.tools.GetOffsetShell"
	producerPerformance = "org.apache.kafka.tools.ProducerPerformance"
	consoleConsumer     = "org.apache.kafka.tools.consumer.ConsoleConsumer"
	deleteRecords       = "org.apache.kafka.tools.DeleteRecordsCommand"
	logDirs             = "org.apache.kafka.tools.LogDirsCommand"
	leaderElection      = "org.apache.kafka.tools.LeaderElectionCommand"
	reassignPartitions  = "org.apache.kafka.tools.reassign.ReassignPartitionsCommand"
	metadataQuorum      = "org.apache.kafka.tools.MetadataQuorumCommand"
)

func (g generation) run(t *testing.T, stdin, class string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*stepTimeout)
	defer cancel()
	out, err := peer.RunTool(ctx, g.set, peer.QuickJVM, stdin, class, append([]string{"--bootstrap-server", broker.Addr()}, args...)...)
	need(t, err)
	return out
}

// eachGeneration runs the test once with the tools of each release.
func eachGeneration(t *testing.T, test func(t *testing.T, g generation)) {
	for version, g := range generations {
		t.Run(version, func(t *testing.T) { test(t, g) })
	}
}

func mustContain(t *testing.T, out string, wanted ...string) {
	t.Helper()
	for _, want := range wanted {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
}

func TestJavaTopicsAndConfigs(t *testing.T) {
	eachGeneration(t, func(t *testing.T, g generation) {
		topic := topicName(t)
		g.run(t, "", topicCommand, "--create", "--topic", topic, "--partitions", "3", "--config", "retention.ms=7777777")
		awaitTopic(t, topic, 3)
		mustContain(t, g.run(t, "", topicCommand, "--describe", "--topic", topic), "PartitionCount: 3", "ReplicationFactor: 1", "retention.ms=7777777", "Partition: 2\tLeader: ")
		g.run(t, "", topicCommand, "--alter", "--topic", topic, "--partitions", "5")
		awaitTopic(t, topic, 5)
		g.run(t, "", configCommand, "--alter", "--entity-type", "topics", "--entity-name", topic, "--add-config", "max.message.bytes=54321,cleanup.policy=[compact,delete]", "--delete-config", "retention.ms")
		described := g.run(t, "", configCommand, "--describe", "--entity-type", "topics", "--entity-name", topic)
		mustContain(t, described, "max.message.bytes=54321", "cleanup.policy=compact,delete", "DYNAMIC_TOPIC_CONFIG:max.message.bytes=54321")
		if strings.Contains(described, "retention.ms=7777777") {
			t.Errorf("retention.ms is still set:\n%s", described)
		}
		mustContain(t, g.run(t, "", configCommand, "--describe", "--all", "--entity-type", "topics", "--entity-name", topic), "segment.bytes=", "DEFAULT_CONFIG:")
		g.run(t, "", topicCommand, "--delete", "--topic", topic)
		list := strings.Fields(g.run(t, "", topicCommand, "--list"))
		if slices.Contains(list, topic) && !onKafka { // Kafka answers before it is gone
			t.Errorf("%s is listed after its deletion", topic)
		}
	})
}

// The console tools exchange keys, values, headers and times with each other
// and with franz-go, for partitions assigned by hand.
func TestJavaConsole(t *testing.T) {
	eachGeneration(t, func(t *testing.T, g generation) {
		topic := newTopic(t, 2)
		read := func(from string, count int) string {
			t.Helper()
			args := []string{"--topic", topic, "--partition", "0", "--offset", from, "--max-messages", fmt.Sprint(count)}
			for _, p := range []string{"print.timestamp=true", "print.partition=true", "print.offset=true", "print.key=true", "print.headers=true"} {
				args = append(args, g.formatterProps, p)
			}
			return g.run(t, "", consoleConsumer, args...)
		}
		records := []record{
			{Key: []byte("k0"), Value: []byte("first"), Millis: firstMillis},
			{Key: nil, Value: []byte("no key"), Millis: firstMillis + 5},
			{Key: []byte("k2"), Value: nil, Millis: firstMillis + 2},
			{Key: []byte("ключ"), Value: []byte("値"), Millis: firstMillis + 3, Headers: []header{{"a", []byte("1")}, {"b", []byte("zwei")}}},
		}
		produce(t, topic, toFranz(records))
		want := []string{
			fmt.Sprintf("CreateTime:%d\tPartition:0\tOffset:0\tNO_HEADERS\tk0\tfirst", firstMillis),
			fmt.Sprintf("CreateTime:%d\tPartition:0\tOffset:1\tNO_HEADERS\tnull\tno key", firstMillis+5),
			fmt.Sprintf("CreateTime:%d\tPartition:0\tOffset:2\tNO_HEADERS\tk2\tnull", firstMillis+2),
			fmt.Sprintf("CreateTime:%d\tPartition:0\tOffset:3\ta:1,b:zwei\tключ\t値", firstMillis+3),
		}
		if got := strings.TrimSpace(read("earliest", len(want))); got != strings.Join(want, "\n") {
			t.Errorf("console consumer printed\n%s\nwant\n%s", got, strings.Join(want, "\n"))
		}
		if got := strings.TrimSpace(read("2", 2)); got != strings.Join(want[2:], "\n") {
			t.Errorf("from offset 2 it printed\n%s", got)
		}

		other := newTopic(t, 1)
		for _, codec := range []string{"none", "gzip", "snappy", "lz4", "zstd"} {
			g.run(t, "h1:x,h2:y\t"+codec+"-1\tone\nh1:z\t"+codec+"-2\ttwo\n", g.consoleProducer, "--topic", other, "--compression-codec", codec,
				g.readerProps, "parse.key=true", g.readerProps, "parse.headers=true", g.consoleProducerOptions, "linger.ms=50")
		}
		var sent []record
		for _, codec := range []string{"none", "gzip", "snappy", "lz4", "zstd"} {
			sent = append(sent,
				record{Key: []byte(codec + "-1"), Value: []byte("one"), Headers: []header{{"h1", []byte("x")}, {"h2", []byte("y")}}},
				record{Key: []byte(codec + "-2"), Value: []byte("two"), Headers: []header{{"h1", []byte("z")}}})
		}
		diff(t, "franz-go", noTimes(fromFranz(consume(t, other, 0, 0, len(sent)))), sent)
	})
}

var recordsSent = regexp.MustCompile(`(?m)^(\d+) records sent, .* 99\.9th`)

// The performance tool says "records sent" even when every send failed, so the
// end offsets are asked with another tool.
func TestJavaProducerPerformance(t *testing.T) {
	const count = 20_000
	eachGeneration(t, func(t *testing.T, g generation) {
		topic := newTopic(t, 3)
		runs := [][]string{
			{"acks=all"},
			{"acks=1", "enable.idempotence=false"},
			{"acks=all", "linger.ms=5", "batch.size=65536", "compression.type=lz4"},
			{"acks=all", "compression.type=zstd"},
		}
		for _, props := range runs {
			args := []string{"--topic", topic, "--num-records", strconv.Itoa(count), "--record-size", "100", "--throughput", "-1", g.producerProps}
			args = append(args, props...)
			if g.producerProps == "--producer-props" { // the older tool has no option for the address
				ctx, cancel := context.WithTimeout(t.Context(), 2*stepTimeout)
				out, err := peer.RunTool(ctx, g.set, peer.QuickJVM, "", producerPerformance, append(args, "bootstrap.servers="+broker.Addr())...)
				cancel()
				need(t, err)
				checkSent(t, out, count)
				continue
			}
			checkSent(t, g.run(t, "", producerPerformance, args...), count)
		}
		total := 0
		for line := range strings.Lines(g.run(t, "", getOffsetShell, "--topic", topic)) {
			f := strings.Split(strings.TrimSpace(line), ":")
			n, err := strconv.Atoi(f[len(f)-1])
			if err != nil || len(f) != 3 || f[0] != topic {
				t.Fatalf("kafka-get-offsets printed %q", line)
			}
			total += n
		}
		if total != count*len(runs) {
			t.Errorf("the partitions end at %d together, want %d", total, count*len(runs))
		}
	})
}

func checkSent(t *testing.T, out string, count int) {
	t.Helper()
	m := recordsSent.FindAllStringSubmatch(out, -1)
	if len(m) == 0 || m[len(m)-1][1] != strconv.Itoa(count) {
		t.Errorf("the tool did not say that it sent %d records:\n%s", count, out)
	}
}

func TestJavaGetOffsets(t *testing.T) {
	records := samples()[:30]
	for i := range records {
		records[i].Millis = firstMillis + int64(i)*10
	}
	eachGeneration(t, func(t *testing.T, g generation) {
		topic := newTopic(t, 1)
		produce(t, topic, toFranz(records))
		for at, want := range map[string]int{
			"latest": 30, "earliest": 0, "max-timestamp": 29, strconv.Itoa(firstMillis + 101): 11,
		} {
			out := strings.TrimSpace(g.run(t, "", getOffsetShell, "--topic", topic, "--time", at))
			if out != fmt.Sprintf("%s:0:%d", topic, want) {
				t.Errorf("--time %s: %q, want offset %d", at, out, want)
			}
		}
	})
}

func TestJavaBrokerApiVersions(t *testing.T) {
	eachGeneration(t, func(t *testing.T, g generation) {
		mustContain(t, g.run(t, "", g.brokerAPIVersions), broker.Addr()+" (id: ", "Produce(0): ", "Fetch(1): ", "Metadata(3): ", "InitProducerId(22): ")
	})
}

func TestJavaDeleteRecordsAndLogDirs(t *testing.T) {
	eachGeneration(t, func(t *testing.T, g generation) {
		topic := newTopic(t, 1)
		produce(t, topic, toFranz(samples()), kgo.ProducerBatchCompression(kgo.NoCompression()))
		request := fmt.Sprintf(`{"version":1,"partitions":[{"topic":%q,"partition":0,"offset":20}]}`, topic)
		file := writeFile(t, "delete.json", request)
		mustContain(t, g.run(t, "", deleteRecords, "--offset-json-file", file), "low_watermark: 20")
		mustContain(t, g.run(t, "", logDirs, "--describe", "--topic-list", topic), `"partition":"`+topic+`-0"`)
	})
}

// The tools that move replicas, elect leaders and look at the quorum find a
// cluster in which there is nothing to do.
func TestJavaClusterTools(t *testing.T) {
	eachGeneration(t, func(t *testing.T, g generation) {
		topic := newTopic(t, 2)
		mustContain(t, g.run(t, "", leaderElection, "--election-type", "preferred", "--topic", topic, "--partition", "1"), "Valid replica already elected for partitions "+topic+"-1")

		out := g.run(t, "", metadataQuorum, "describe", "--status")
		leader := regexp.MustCompile(`LeaderId: +(\d+)`).FindStringSubmatch(out)
		if leader == nil {
			t.Fatalf("no leader in\n%s", out)
		}
		plan := writeFile(t, "plan.json", fmt.Sprintf(`{"version":1,"partitions":[{"topic":%q,"partition":0,"replicas":[%s]}]}`, topic, leader[1]))
		mustContain(t, g.run(t, "", reassignPartitions, "--execute", "--reassignment-json-file", plan), "Successfully started partition reassignment for "+topic+"-0")
		mustContain(t, g.run(t, "", reassignPartitions, "--verify", "--reassignment-json-file", plan), "Reassignment of partition "+topic+"-0 is completed.")
	})
}
