package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sys/unix"
)

// beFaulty is a part of paths, perhaps behind allBut. When a byte comes on
// descriptor 3, syncs of the files open on such a path begin to fail with EIO, or
// with allBut those of all other files, later ones included; then a byte goes out
// on descriptor 4. The kernel does it, by a filter that the process puts on
// itself, so nothing of quire knows.
const (
	beFaulty = "BE_QUIRE_WITH_FAULTY_FILES"
	allBut   = "!"
)

func init() {
	prepareProcess = append(prepareProcess, func() {
		// A test binary that ends by a panic or a timeout cleans up nothing.
		if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0); err != nil {
			panic(err)
		}
	}, func() {
		part := os.Getenv(beFaulty)
		if part == "" {
			return
		}
		go func() {
			if _, err := os.NewFile(3, "").Read(make([]byte, 1)); err != nil {
				return // nobody wants a fault
			}
			if err := failSyncs(part); err != nil {
				panic(err)
			}
			if _, err := os.NewFile(4, "").Write([]byte{0}); err != nil {
				panic(err)
			}
		}()
	})
}

// failSyncs lets every thread's syncs of the files fail that part names as
// beFaulty says.
func failSyncs(part string) error {
	const (
		load        = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS
		jumpIfEqual = unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K
		end         = unix.BPF_RET | unix.BPF_K
		// Of struct seccomp_data; of the argument the lower half, little-endian.
		atNumber, atFirstArgument = 0, 16
	)
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return err
	}
	part, others := strings.CutPrefix(part, allBut)
	named, unnamed := unix.SECCOMP_RET_ERRNO|uint32(unix.EIO), uint32(unix.SECCOMP_RET_ALLOW)
	if others {
		named, unnamed = unnamed, named
	}
	program := []unix.SockFilter{
		{Code: load, K: atNumber},
		{Code: jumpIfEqual, K: unix.SYS_FDATASYNC, Jt: 2},
		{Code: jumpIfEqual, K: unix.SYS_FSYNC, Jt: 1},
		{Code: end, K: unix.SECCOMP_RET_ALLOW},
		{Code: load, K: atFirstArgument},
	}
	for _, e := range entries {
		target, err := os.Readlink(filepath.Join("/proc/self/fd", e.Name()))
		if err != nil || !strings.Contains(target, part) {
			continue
		}
		var fd uint32
		if _, err := fmt.Sscan(e.Name(), &fd); err != nil {
			return err
		}
		program = append(program, unix.SockFilter{Code: jumpIfEqual, K: fd, Jf: 1}, unix.SockFilter{Code: end, K: named})
	}
	program = append(program, unix.SockFilter{Code: end, K: unnamed})
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	f := unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}
	if _, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&f))); errno != 0 {
		return fmt.Errorf("seccomp: %w", errno)
	}
	return nil
}

// startFaulty starts quire and returns a function that lets syncs of files fail
// from then on; see beFaulty for part.
func startFaulty(t *testing.T, part string, args ...string) (s *instance, breakFiles func()) {
	t.Helper()
	cmd := command(t, args...)
	cmd.Env = append(cmd.Env, beFaulty+"="+part)
	theirIn, in, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	out, theirOut, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.ExtraFiles = []*os.File{theirIn, theirOut}
	s = startCommand(t, cmd)
	theirIn.Close()
	theirOut.Close()
	t.Cleanup(func() { in.Close(); out.Close() })
	return s, func() {
		t.Helper()
		if _, err := in.Write([]byte{0}); err != nil {
			t.Fatal(err)
		}
		if _, err := out.Read(make([]byte, 1)); err != nil {
			t.Fatalf("the process has no faulty files: %v\n%s", err, s.stderr.String())
		}
	}
}

// endsLoud waits until the process ends by itself and checks what it says last.
func (s *instance) endsLoud(folder string) {
	s.t.Helper()
	if status := s.wait(); status != 1 {
		s.t.Errorf("status %d, want 1", status)
	}
	lines := strings.Split(strings.TrimSpace(s.stderr.String()), "\n")
	last := lines[len(lines)-1]
	for _, want := range []string{"quire: data folder " + folder + " cannot be written any more: ", "input/output error", "start again"} {
		if !strings.Contains(last, want) {
			s.t.Errorf("the last line is %q, does not say %q", last, want)
		}
	}
}

// TestJournalCannotBeSynced: what was not synced is not acknowledged, the process
// ends by itself with one line that says why, and the next one has all that was
// acknowledged.
func TestJournalCannotBeSynced(t *testing.T) {
	dir := t.TempDir()
	s, breakFiles := startFaulty(t, allBut+"/"+etcdDir+"/", serveArgs(dir)...)
	s.tool("one\ntwo\n", "produce", "t")
	breakFiles()
	client, err := kgo.NewClient(kgo.SeedBrokers(s.address), kgo.DefaultProduceTopic("t"), kgo.MetadataMinAge(10*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var falselyAcknowledged atomic.Bool
	client.Produce(ctx, kgo.StringRecord("three"), func(_ *kgo.Record, err error) { falselyAcknowledged.Store(err == nil) })
	s.endsLoud(filepath.Join(dir, ledgersDir))
	cancel()
	client.Close()
	if falselyAcknowledged.Load() {
		t.Error("a record that could not be synced was acknowledged")
	}

	s = start(t, serveArgs(dir)...)
	// The kernel has the bytes all the same; whether they count is open.
	if got := s.tool("", "consume", "t", "-e"); got != "one\ntwo\n" && got != "one\ntwo\nthree\n" {
		t.Errorf("after the restart: %q", got)
	}
	s.tool("four\n", "produce", "t")
	if got := s.tool("", "consume", "t", "-e"); !strings.HasSuffix(got, "\nfour\n") {
		t.Errorf("after another record: %q", got)
	}
	s.stop()
}

// TestMetadataCannotBeSynced: the same for the metadata store, which ends in its
// own way.
func TestMetadataCannotBeSynced(t *testing.T) {
	dir := t.TempDir()
	s, breakFiles := startFaulty(t, "/"+etcdDir+"/member/wal/", serveArgs(dir)...)
	s.tool("one\n", "produce", "t")
	breakFiles()
	if status, out := s.tryTool("", "topic", "create", "u"); status == 0 {
		t.Errorf("a topic is made that could not be synced: %s", out)
	}
	s.endsLoud(filepath.Join(dir, etcdDir))
	s = start(t, serveArgs(dir)...)
	if got := s.tool("", "consume", "t", "-e"); got != "one\n" {
		t.Errorf("after the restart: %q", got)
	}
	s.tool("", "topic", "create", "v")
	s.stop()
}
