// Package transcripts asks one script of requests of a server, every API key at
// every version, valid and not, and compares the answers field by field with
// those that Apache Kafka 3.9.1 and 4.4.0 gave, which testdata holds as text.
//
// A step is one request. What the two Kafkas answer differently is decided in
// choices, what Quire means to answer differently is listed in differences,
// each with its reason; everything else must be equal.
//
// After a change of the script the two files are written anew:
//
//	QUIRE_CONFORMANCE_TARGET=kafka3 go test ./transcripts -update
//	QUIRE_CONFORMANCE_TARGET=kafka go test ./transcripts -update
//
// Without -update the same commands show that the files are still true.
package transcripts

import (
	"context"
	"flag"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/quirelog/quire/conformance/peer"
)

var (
	update  = flag.Bool("update", false, "write the answers of the Apache Kafka that is the target to testdata")
	answers = flag.String("answers", "", "write the answers to this file too, to compare them by eye")
)

// target is the server that is asked.
var target = os.Getenv("QUIRE_CONFORMANCE_TARGET")

const (
	onKafka3 = "kafka3"
	onKafka4 = "kafka"
)

// manyNodes tells that several nodes look like one to the script.
var manyNodes = target == "cluster" || target == "foreign"

// files of testdata by target.
var files = map[string]string{
	onKafka3: filepath.Join("testdata", "kafka-3.9.1.txt"),
	onKafka4: filepath.Join("testdata", "kafka-4.4.0.txt"),
}

// stepTimeout bounds one exchange with a server that is up. It is a limit on
// hangs, far above what any step takes.
const stepTimeout = 60 * time.Second

// overrides make runs comparable: groups that wait for nobody, and the same node id.
func overrides() []string {
	if manyNodes { // whose ids are their own; see renumber
		return []string{"group.initial.rebalance.delay.ms=0"}
	}
	return []string{"group.initial.rebalance.delay.ms=0", "node.id=1"}
}

func TestTranscript(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*stepTimeout)
	defer cancel()
	server, err := peer.NewTarget(ctx, peer.Options{Dir: t.TempDir(), Overrides: overrides()})
	if err != nil {
		t.Fatal(err)
	}
	if err := server.Start(ctx); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("end of the server's log:\n%s", server.LogTail(20))
		}
		server.Kill()
	})

	s := newScript(t, server.Addr())
	s.run()
	if err := server.Ended(); err != nil {
		t.Fatalf("during the script: %v", err)
	}
	if *answers != "" {
		s.write(*answers)
	}
	if *update {
		s.update()
	} else {
		s.compare()
	}
}
