package clients

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/quirelog/quire/conformance/peer"
)

// confluentTests are confluent-kafka-go's own tests of consumer groups and
// their administration, by the protocols that they run with. The ones that
// describe groups expect a classic group's state.
var confluentTests = map[string][]string{
	"classic": {
		"TestAdminClient_DeleteConsumerGroups",
		"TestAdminClient_ListAndDescribeConsumerGroups",
		"TestAdminClient_ListAllConsumerGroupsOffsets",
		"TestAdminClient_ListConsumerGroups",
		"TestConsumerChannel",
		"TestConsumerChannelIncremental",
		"TestConsumerCommitted",
		"TestConsumerPoll",
		"TestConsumerPollIncremental",
		"TestConsumerPollRebalance",
		"TestConsumerPollRebalanceIncremental",
		"TestConsumerPollRebalanceIncrementalNoop",
		"TestConsumerSeekPartitions",
	},
	"consumer": {
		"TestAdminClient_DeleteConsumerGroups",
		"TestAdminClient_ListAllConsumerGroupsOffsets",
		"TestConsumerChannel",
		"TestConsumerChannelIncremental",
		"TestConsumerCommitted",
		"TestConsumerPoll",
		"TestConsumerPollIncremental",
		"TestConsumerPollRebalanceIncremental",
		"TestConsumerPollRebalanceIncrementalNoop",
		"TestConsumerSeekPartitions",
	},
}

var confluentVerdict = regexp.MustCompile(`(?m)^ +--- (PASS|FAIL|SKIP): TestIntegration/(\S+)`)

// TestConfluentSuite runs them from the module's source at the version of
// go.mod. It takes minutes to build and is part of the full run. A test that
// did not run, renamed or skipped, is a failure.
func TestConfluentSuite(t *testing.T) {
	if !full {
		return
	}
	const timeout = 10 * time.Minute
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	defer cancel()
	work, err := peer.WorkDir()
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(work, "bin", "confluent.test")
	if out, err := exec.CommandContext(ctx, "go", "test", "-c", "-o", program, "github.com/confluentinc/confluent-kafka-go/v2/kafka").CombinedOutput(); err != nil {
		t.Fatalf("build the tests: %v\n%s", err, out)
	}
	for protocol, tests := range confluentTests {
		t.Run(protocol, func(t *testing.T) {
			conf, err := json.Marshal(map[string]string{"Brokers": broker.Addr(), "TopicName": newTopic(t, 3), "GroupID": topicName(t)})
			if err != nil {
				t.Fatal(err)
			}
			cmd := exec.CommandContext(ctx, program, "-test.v", "-test.run", "^TestIntegration$", "-testify.m", "^("+strings.Join(tests, "|")+")$")
			cmd.Dir = filepath.Dir(writeFile(t, "testconf.json", string(conf)))
			cmd.Env = append(os.Environ(), "TEST_CONSUMER_GROUP_PROTOCOL="+protocol)
			out, runErr := cmd.CombinedOutput()
			verdicts := map[string]string{}
			for _, m := range confluentVerdict.FindAllStringSubmatch(string(out), -1) {
				verdicts[m[2]] = m[1]
			}
			for _, name := range tests {
				if verdicts[name] != "PASS" {
					t.Errorf("%s: %q", name, verdicts[name])
				}
			}
			if runErr != nil || t.Failed() {
				t.Fatalf("confluent-kafka-go's tests: %v\n%s", runErr, out)
			}
		})
	}
}
