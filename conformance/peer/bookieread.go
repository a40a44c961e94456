package peer

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"time"
)

// Answers of a bookie to a read, from BookKeeper's BookieProtocol.
const (
	BookieOK       = 0
	BookieNoLedger = 1
	BookieNoEntry  = 2
)

// ReadEntry asks one bookie for its copy of an entry, past every client, and
// returns its answer and the payload of an entry with CRC32C, unchecked.
func (s *JavaServer) ReadEntry(ctx context.Context, ledger, entry int64) (code int32, payload []byte, err error) {
	const timeout = 5 * time.Second
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", s.ID)
	if err != nil {
		return 0, nil, err
	}
	defer conn.Close()
	if deadline, ok := ctx.Deadline(); ok {
		if err := conn.SetDeadline(deadline); err != nil {
			return 0, nil, err
		}
	}
	const version, readEntry = 2, 2
	request := binary.BigEndian.AppendUint32(nil, 4+8+8)
	request = binary.BigEndian.AppendUint32(request, version<<24|readEntry<<16)
	request = binary.BigEndian.AppendUint64(request, uint64(ledger))
	request = binary.BigEndian.AppendUint64(request, uint64(entry))
	if _, err := conn.Write(request); err != nil {
		return 0, nil, err
	}
	var length [4]byte
	if _, err := io.ReadFull(conn, length[:]); err != nil {
		return 0, nil, err
	}
	const codeAt, storedAt, payloadAt = 4, 24, 24 + 32 + 4
	n := binary.BigEndian.Uint32(length[:])
	if n < storedAt || n > NettyMaxFrameBytes {
		return 0, nil, fmt.Errorf("bookie %s answers with %d bytes", s.ID, n)
	}
	frame := make([]byte, n)
	if _, err := io.ReadFull(conn, frame); err != nil {
		return 0, nil, err
	}
	code = int32(binary.BigEndian.Uint32(frame[codeAt:]))
	if code != BookieOK {
		return code, nil, nil
	}
	if n < payloadAt {
		return 0, nil, errors.New("the stored entry is shorter than its own header")
	}
	return code, frame[payloadAt:], nil
}
