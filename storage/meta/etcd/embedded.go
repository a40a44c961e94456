package etcd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/fileutil"
	"go.etcd.io/etcd/client/pkg/v3/types"
	"go.etcd.io/etcd/server/v3/config"
	"go.etcd.io/etcd/server/v3/etcdserver"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3client"
	"go.etcd.io/etcd/server/v3/features"
	"go.etcd.io/etcd/server/v3/storage/wal"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// EmbeddedConfig says how to run etcd in this process.
type EmbeddedConfig struct {
	Dir    string      // created if it does not exist; one process at a time
	Logger *zap.Logger // gets warnings and errors; nil: silent

	RequestTimeout time.Duration // of one request; 0: 5 s

	// QuotaBytes is the size of the database beyond which nothing is put
	// (meta.ErrNoSpace). 0: the largest that etcd is recommended for, 8 GiB.
	QuotaBytes int64

	// OnFailure is called once, on a goroutine of the store, if the server ends by
	// itself because its files cannot be written. Every request fails with
	// ErrUnavailable from then on, watches end as at Close, and only a new process
	// can open the folder. It must not call Close. May be nil.
	OnFailure func(error)
}

const defaultQuotaBytes = 8 << 30

// walSegmentBytes is how much of etcd's log is allocated ahead. Its own 64 MB,
// twice, would be most of what a small data folder holds.
const walSegmentBytes = 16 << 20

// etcd has no other way to set it, and reads it without a lock.
func init() { wal.SegmentSizeBytes = walSegmentBytes }

// stopTimeout bounds the wait for a server that hangs in its files.
const stopTimeout = 10 * time.Second

// ErrLocked: another process has the folder open.
var ErrLocked = errors.New("folder is in use by another process")

// server is etcd in this process. It has no listeners at all: requests are
// function calls, and a cluster of one has no peers.
type server struct {
	etcd  *etcdserver.EtcdServer
	dir   string
	lock  *fileutil.LockedFile
	space freeSpace
}

// OpenEmbedded starts an etcd of one member on a folder and returns a store on
// it once it serves. ErrLocked if another process has the folder.
func OpenEmbedded(ctx context.Context, c EmbeddedConfig) (*Store, error) {
	if c.QuotaBytes == 0 {
		c.QuotaBytes = defaultQuotaBytes
	}
	if err := os.MkdirAll(c.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("metadata folder: %w", err)
	}
	// etcd waits without end for a folder that is in use.
	lock, err := fileutil.TryLockFile(filepath.Join(c.Dir, "lock"), os.O_WRONLY|os.O_CREATE, 0o600)
	if errors.Is(err, fileutil.ErrLocked) {
		return nil, fmt.Errorf("metadata folder %s: %w", c.Dir, ErrLocked)
	}
	if err != nil {
		return nil, fmt.Errorf("metadata folder %s: %w", c.Dir, err)
	}
	s := newStore(c.Logger, c.RequestTimeout)
	s.server = &server{dir: c.Dir, lock: lock, space: freeSpace{dir: c.Dir, free: freeBytes}}
	if err := s.start(ctx, c); err != nil {
		s.cancel()
		lock.Close()
		return nil, fmt.Errorf("metadata folder %s: %w", c.Dir, err)
	}
	client := v3client.New(s.server.etcd)
	s.kv, s.watcher, s.leases = client, client, client
	s.startCompaction()
	return s, nil
}

// start starts the server and waits until it serves.
func (s *Store) start(ctx context.Context, c EmbeddedConfig) error {
	failure := make(chan error, 1)
	end := endGoroutine(func(err error) {
		if s.failed.CompareAndSwap(nil, &err) {
			s.cancel()
			failure <- err
		}
	})
	logger := s.logger.WithOptions(zap.WithFatalHook(end), zap.WithPanicHook(end))
	started := make(chan error, 1)
	go func() {
		etcd, err := etcdserver.NewServer(serverConfig(c.Dir, c.QuotaBytes, logger))
		if err == nil {
			etcd.Start()
			s.server.etcd = etcd
		}
		started <- err
	}()
	select {
	case err := <-started:
		if err != nil {
			return fmt.Errorf("etcd: %w", err)
		}
	case err := <-failure:
		// Its files cannot be used. What etcd had begun stays begun, in goroutines
		// that wait for each other; the caller's process is expected to end.
		return err
	}
	select {
	case <-s.server.etcd.ReadyNotify():
	case err := <-failure:
		return errors.Join(err, s.server.stop())
	case <-ctx.Done():
		return errors.Join(ctx.Err(), s.server.stop())
	}
	s.background.Add(1)
	go func() {
		defer s.background.Done()
		select {
		case err := <-failure:
			if c.OnFailure != nil {
				c.OnFailure(err)
			}
		case <-s.closing:
		}
	}()
	return nil
}

// serverConfig is a member that is a cluster by itself. fsync stays on.
func serverConfig(dir string, quotaBytes int64, logger *zap.Logger) config.ServerConfig {
	// A name only: a member must have a peer URL, and nothing listens on it.
	urls := types.MustNewURLs([]string{"unix://quire-embedded:1"})
	return config.ServerConfig{
		Name:                "quire",
		ClientURLs:          urls,
		PeerURLs:            urls,
		DataDir:             dir,
		InitialPeerURLsMap:  types.URLsMap{"quire": urls},
		InitialClusterToken: "quire",
		NewCluster:          true,
		Logger:              logger,
		ServerFeatureGate:   features.NewDefaultServerFeatureGate("quire", logger),

		// The only voter has nobody to wait for: it elects itself within
		// 2 to 4 ticks of 50 ms. The shortest lease is 1 s.
		TickMs:                     50,
		ElectionTicks:              2,
		InitialElectionTickAdvance: true,

		// No follower ever catches up from the log in memory. Fewer changes
		// between snapshots on disk are fewer to repeat at the next start.
		SnapshotCount:          2_000,
		SnapshotCatchUpEntries: 16,
		MaxSnapFiles:           2,
		MaxWALFiles:            2,

		QuotaBackendBytes:           quotaBytes,
		MaxTxnOps:                   128,
		MaxRequestBytes:             1536 << 10,
		BcryptCost:                  10,
		StrictReconfigCheck:         true,
		PreVote:                     true,
		WarningApplyDuration:        time.Second,
		WarningUnaryRequestDuration: 2 * time.Second,
		MaxLearners:                 1,
		V2Deprecation:               config.V2DeprDefault,
		Metrics:                     "basic",
	}
}

// stop stops the server and lets go of the folder.
func (v *server) stop() error {
	stopped := make(chan struct{})
	go func() {
		v.etcd.Stop()
		close(stopped)
	}()
	t := time.NewTimer(stopTimeout)
	defer t.Stop()
	select {
	case <-stopped:
		return v.lock.Close()
	case <-t.C:
		// It hangs on a file that failed. The lock stays: so do its goroutines.
		return fmt.Errorf("metadata folder %s: etcd did not stop within %v", v.dir, stopTimeout)
	}
}

// endGoroutine makes etcd's fatal and panic log entries end the goroutine that
// is stuck instead of the process. etcd makes them where it cannot make something
// durable or cannot trust what it reads, and nothing that waits for such a
// goroutine is ever acknowledged.
type endGoroutine func(error)

// OnWrite implements zapcore.CheckWriteHook.
func (end endGoroutine) OnWrite(entry *zapcore.CheckedEntry, fields []zapcore.Field) {
	err := errors.New("etcd: " + entry.Message)
	for _, f := range fields {
		if cause, ok := f.Interface.(error); ok && f.Type == zapcore.ErrorType {
			err = fmt.Errorf("etcd: %s: %w", entry.Message, cause)
		}
	}
	end(err)
	runtime.Goexit()
}
