package clients

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
)

// kgoTests are franz-go's own tests that talk to a broker and need neither
// transactions nor share groups, nor a broker too old for them. TestGroupETL
// chains groups whose members come and go, of both group protocols, and looks
// for records read twice or out of order; TestIssue523 does so with a topic
// that is deleted.
var kgoTests = []string{
	"Test848RegexBrokerResolves",
	"TestAddRemovePartitions",
	"TestClient_Produce",
	"TestClient_ProduceLargeMessages",
	"TestConsumeMaxDecompressBatchBytes",
	"TestConsumeRegex",
	"TestConsumeTopicRetrieval",
	"TestConsumeTopicRetrieval_Many",
	"TestDirectPartitionPurge",
	"TestGroupETL",
	"TestGroupSimple",
	"TestHookPollStart",
	"TestIssue325",
	"TestIssue337",
	"TestIssue434",
	"TestIssue523",
	"TestIssue648",
	"TestIssue769",
	"TestIssue810",
	"TestIssue831",
	"TestIssue865",
	"TestIssueFetchLargerThanBrokerMaxReadBytes",
	"TestIssueProduceSyncManualPartitionNegativeDoesNotPanic",
	"TestPauseIssue489",
	"TestPauseIssueOct2023",
	"TestPing",
	"TestPooling",
	"TestUnknownGroupOffsetFetchPinned",
}

var kgoVerdict = regexp.MustCompile(`(?m)^--- (PASS|FAIL|SKIP): (\S+)`)

// TestKgoSuite runs them from the module's source at the version of go.mod.
// A test that did not run, renamed or skipped, is a failure.
func TestKgoSuite(t *testing.T) {
	const timeout = 10 * time.Minute
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	defer cancel()
	// Two of the tests want an internal topic. Kafka makes its own when a group
	// is asked for; a broker that keeps groups elsewhere has none.
	awaitCoordinator(t, topicName(t))
	if created, err := admin(t).CreateTopic(step(t), 1, 1, nil, "__consumer_offsets"); err != nil && !errors.Is(err, kerr.TopicAlreadyExists) {
		t.Fatalf("create an internal topic: %v", errors.Join(err, created.Err))
	}
	cmd := exec.CommandContext(ctx, "go", "test", "-count=1", "-v", "-timeout", timeout.String(),
		"-run", "^("+strings.Join(kgoTests, "|")+")$", "github.com/twmb/franz-go/pkg/kgo")
	records := 10_000 // of each of the first topics of its chains
	if full {
		records = 200_000
	}
	cmd.Env = append(os.Environ(), "KGO_SEEDS="+broker.Addr(), "KGO_TEST_RF=1", "KGO_LOG_LEVEL=none", "KGO_TEST_RECORDS="+strconv.Itoa(records))
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	runErr := cmd.Run()
	verdicts := map[string]string{}
	for _, m := range kgoVerdict.FindAllStringSubmatch(out.String(), -1) {
		verdicts[m[2]] = m[1]
	}
	for _, name := range kgoTests {
		if verdicts[name] != "PASS" {
			t.Errorf("%s: %q", name, verdicts[name])
		}
	}
	if runErr != nil || t.Failed() {
		t.Fatalf("go test kgo: %v\n%s", runErr, out.String())
	}
}
