package embedded

import (
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"path"

	"github.com/quirelog/quire/storage/ledger"
	"github.com/quirelog/quire/storage/vfs"
)

// The file CHECKPOINT has two blocks, written in turn, so that a torn write
// leaves the record before it:
//
//	0  4  crc32c of the 60 bytes that follow
//	4  4  magic "QChk"
//	8  8  sequence number of the record; the higher of the two counts
//	16 8  journal file where the replay begins
//	24 8  position in it; 0: nothing is to be replayed unless the file exists
//	32 8  sequence number of the group there
//	40 8  ledger id that comes next
//	48 16 zero
const (
	checkpointMagic = 0x6b684351
	checkpointFile  = "CHECKPOINT"
)

type checkpointRecord struct {
	seq    uint64
	at     journalPos
	nextID int64
}

type checkpointStore struct {
	f    vfs.File
	last checkpointRecord
}

func openCheckpoints(t *Tier, fresh bool) (*checkpointStore, error) {
	mode := vfs.Write
	if fresh {
		mode |= vfs.Create
	}
	name := path.Join(t.c.Dir, checkpointFile)
	f, err := t.fs.Open(name, mode)
	if err != nil {
		return nil, fmt.Errorf("open the checkpoint: %w", err)
	}
	s := &checkpointStore{f: f}
	if fresh {
		// Both blocks are written so that neither is ever anything else than a
		// record or the torn successor of one.
		for range 2 {
			if err := s.write(checkpointRecord{at: journalPos{fileSeq: 1, groupSeq: 1}, nextID: 1}); err != nil {
				return nil, errors.Join(fmt.Errorf("write the first checkpoint: %w", err), f.Close())
			}
		}
		return s, nil
	}
	b := make([]byte, 2*vfs.BlockBytes)
	if n, err := f.ReadAt(b, 0); err != nil && !errors.Is(err, io.EOF) {
		return nil, errors.Join(fmt.Errorf("read the checkpoint: %w", err), f.Close())
	} else {
		b = b[:n]
	}
	for off := 0; off+64 <= len(b); off += vfs.BlockBytes {
		if r, ok := parseCheckpoint(b[off:]); ok && r.seq > s.last.seq {
			s.last = r
		}
	}
	if s.last.seq == 0 {
		return nil, errors.Join(fmt.Errorf("%s holds no valid record: %w", name, ledger.ErrCorrupt), f.Close())
	}
	return s, nil
}

func parseCheckpoint(b []byte) (checkpointRecord, bool) {
	if le.Uint32(b[4:]) != checkpointMagic || crc32.Checksum(b[4:64], castagnoli) != le.Uint32(b) {
		return checkpointRecord{}, false
	}
	return checkpointRecord{
		seq:    le.Uint64(b[8:]),
		at:     journalPos{fileSeq: le.Uint64(b[16:]), pos: int64(le.Uint64(b[24:])), groupSeq: le.Uint64(b[32:])},
		nextID: int64(le.Uint64(b[40:])),
	}, true
}

// write makes r durable as the newest record.
func (s *checkpointStore) write(r checkpointRecord) error {
	r.seq = s.last.seq + 1
	b := make([]byte, vfs.BlockBytes)
	le.PutUint32(b[4:], checkpointMagic)
	le.PutUint64(b[8:], r.seq)
	le.PutUint64(b[16:], r.at.fileSeq)
	le.PutUint64(b[24:], uint64(r.at.pos))
	le.PutUint64(b[32:], r.at.groupSeq)
	le.PutUint64(b[40:], uint64(r.nextID))
	le.PutUint32(b, crc32.Checksum(b[4:64], castagnoli))
	if _, err := s.f.WriteAt(b, int64(r.seq%2)*vfs.BlockBytes); err != nil {
		return fmt.Errorf("write the checkpoint: %w", err)
	}
	if err := s.f.SyncData(); err != nil {
		return fmt.Errorf("sync the checkpoint: %w", err)
	}
	s.last = r
	return nil
}
