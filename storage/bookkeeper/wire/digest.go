package wire

import (
	"crypto/hmac"
	"crypto/sha1"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"sync"

	"github.com/quirelog/quire/storage/bookkeeper/metadata"
)

// ErrDigestType: a digest that this package does not know.
var ErrDigestType = errors.New("unknown digest type")

// MasterKey goes with adds and fencing reads. A bookie keeps that of the first one
// of a ledger and refuses others. It is made of the password, which stands in the
// metadata: it tells ledgers apart and keeps no secret.
type MasterKey [KeyBytes]byte

// NewMasterKey makes the key of a ledger with this password
// (DigestManager.generateMasterKey).
func NewMasterKey(password []byte) MasterKey { return keyOf("ledger", password) }

func keyOf(purpose string, password []byte) MasterKey {
	h := sha1.New()
	h.Write([]byte(purpose))
	h.Write(password)
	return MasterKey(h.Sum(nil))
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// digest computes what stands between the metadata and the payload of an entry.
type digest struct {
	kind  metadata.Digest
	bytes int
	macs  *sync.Pool // of hash.Hash, for HMAC
}

func newDigest(kind metadata.Digest, password []byte) (digest, error) {
	d := digest{kind: kind}
	switch kind {
	case metadata.CRC32:
		d.bytes = 8
	case metadata.CRC32C:
		d.bytes = 4
	case metadata.Dummy:
	case metadata.HMAC:
		d.bytes = sha1.Size
		key := keyOf("mac", password)
		d.macs = &sync.Pool{New: func() any { return hmac.New(sha1.New, key[:]) }}
	default:
		return d, fmt.Errorf("%w %d", ErrDigestType, kind)
	}
	return d, nil
}

// append appends the digest over meta, head and body to dst.
func (d *digest) append(dst, meta, head, body []byte) []byte {
	switch d.kind {
	case metadata.CRC32C:
		sum := crc32.Update(crc32.Update(crc32.Update(0, castagnoli, meta), castagnoli, head), castagnoli, body)
		return binary.BigEndian.AppendUint32(dst, sum)
	case metadata.CRC32:
		sum := crc32.Update(crc32.Update(crc32.ChecksumIEEE(meta), crc32.IEEETable, head), crc32.IEEETable, body)
		return binary.BigEndian.AppendUint64(dst, uint64(sum))
	case metadata.HMAC:
		mac := d.macs.Get().(hash.Hash)
		mac.Reset()
		mac.Write(meta)
		mac.Write(head)
		mac.Write(body)
		dst = mac.Sum(dst)
		d.macs.Put(mac)
	}
	return dst
}
