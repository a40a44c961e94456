package ledgertest_test

import (
	"context"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/quirelog/quire/storage/embedded"
	"github.com/quirelog/quire/storage/ledger"
	"github.com/quirelog/quire/storage/ledger/ledgertest"
	"github.com/quirelog/quire/storage/vfs"
)

// faulty tiers break one rule each; the named tests of the suite must fail.
var faulty = map[string]struct {
	wrap  func(ledger.Tier) ledger.Tier
	fails string
}{
	"recovery does not fence":        {func(t ledger.Tier) ledger.Tier { return noFence{t} }, "RecoverFencesTheWriter"},
	"acknowledged before durable":    {func(t ledger.Tier) ledger.Tier { return early{t} }, "ReadAtTheTailWhileAppending"},
	"acknowledged twice as one":      {func(t ledger.Tier) ledger.Tier { return shifted{t} }, "EntriesAreDenseAndInOrder"},
	"called back from within Append": {func(t ledger.Tier) ledger.Tier { return early{t} }, "AppendedIsCalledInOrderAndNeverFromAppend"},
	"delete forgets":                 {func(t ledger.Tier) ledger.Tier { return noDelete{t} }, "Delete"},
}

type noFence struct{ ledger.Tier }

func (t noFence) Recover(ctx context.Context, id ledger.ID) (ledger.Reader, error) {
	return t.Open(ctx, id)
}

type noDelete struct{ ledger.Tier }

func (noDelete) Delete(context.Context, ledger.ID) error { return nil }

// early tells appenders of success at once.
type early struct{ ledger.Tier }

func (t early) Create(ctx context.Context, p ledger.Properties) (ledger.Writer, error) {
	w, err := t.Tier.Create(ctx, p)
	return &earlyWriter{Writer: w}, err
}

type earlyWriter struct {
	ledger.Writer
	n int64
}

type ignore struct{}

func (ignore) Appended(*ledger.Append, error) {}

func (w *earlyWriter) Append(a *ledger.Append) {
	w.Writer.Append(&ledger.Append{Head: a.Head, Body: a.Body, Buf: a.Buf, Done: ignore{}})
	a.Entry = w.n
	w.n++
	a.Done.Appended(a, nil)
}

// shifted tells wrong entry ids.
type shifted struct{ ledger.Tier }

func (t shifted) Create(ctx context.Context, p ledger.Properties) (ledger.Writer, error) {
	w, err := t.Tier.Create(ctx, p)
	return shiftedWriter{w}, err
}

type shiftedWriter struct{ ledger.Writer }

type shift struct{ ledger.Completion }

func (s shift) Appended(a *ledger.Append, err error) {
	a.Entry -= a.Entry % 2
	s.Completion.Appended(a, err)
}

func (w shiftedWriter) Append(a *ledger.Append) {
	a.Done = shift{a.Done}
	w.Writer.Append(a)
}

const plantedEnv = "QUIRE_LEDGERTEST_PLANTED"

// TestPlanted runs the suite against a faulty tier when TestSuiteSees asks for it.
func TestPlanted(t *testing.T) {
	name := os.Getenv(plantedEnv)
	f, ok := faulty[name]
	if !ok {
		return
	}
	ledgertest.Run(t, func(*testing.T) ledgertest.Factory {
		mem := vfs.NewMem()
		return ledgertest.Factory{Open: func() (ledger.Tier, error) {
			tier, err := embedded.Open(embedded.Config{
				Dir: "store", FS: mem, JournalFileBytes: 1 << 20, JournalFirstBytes: 1 << 16, MinFreeBytes: 1,
			})
			if err != nil {
				return nil, err
			}
			return f.wrap(tier), nil
		}}
	})
}

func TestSuiteSees(t *testing.T) {
	for name, f := range faulty {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestPlanted$/^"+f.fails+"$", "-test.timeout=60s")
			cmd.Env = append(os.Environ(), plantedEnv+"="+name)
			out, err := cmd.CombinedOutput()
			if err == nil || !strings.Contains(string(out), "--- FAIL: TestPlanted/"+f.fails) {
				t.Fatalf("the suite does not see it: %v\n%s", err, out)
			}
		})
	}
}
