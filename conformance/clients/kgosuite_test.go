package clients

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"
)

// kgoTests are franz-go's own tests that talk to a broker and need neither
// groups nor transactions. Left out are those that need a group coordinator,
// a share group or an internal topic, and one for brokers too old for it.
var kgoTests = []string{
	"TestAddRemovePartitions",
	"TestClient_Produce",
	"TestClient_ProduceLargeMessages",
	"TestConsumeMaxDecompressBatchBytes",
	"TestConsumeTopicRetrieval",
	"TestConsumeTopicRetrieval_Many",
	"TestDirectPartitionPurge",
	"TestHookPollStart",
	"TestIssue325",
	"TestIssue337",
	"TestIssue434",
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
}

var kgoVerdict = regexp.MustCompile(`(?m)^--- (PASS|FAIL|SKIP): (\S+)`)

// TestKgoSuite runs them from the module's source at the version of go.mod.
// A test that did not run, renamed or skipped, is a failure.
func TestKgoSuite(t *testing.T) {
	const timeout = 5 * time.Minute
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, "go", "test", "-count=1", "-v", "-timeout", timeout.String(),
		"-run", "^("+strings.Join(kgoTests, "|")+")$", "github.com/twmb/franz-go/pkg/kgo")
	cmd.Env = append(os.Environ(), "KGO_SEEDS="+broker.Addr(), "KGO_TEST_RF=1", "KGO_LOG_LEVEL=none")
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
