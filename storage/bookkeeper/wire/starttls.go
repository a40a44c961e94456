package wire

import (
	"encoding/binary"
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"
)

// Numbers in BookkeeperProtocol.proto.
const (
	fieldHeader   = 1 // of Request and Response
	fieldStatus   = 2 // of Response
	fieldStartTLS = 106

	fieldVersion   = 1 // of BKPacketHeader
	fieldOperation = 2
	fieldTxnID     = 3

	versionThree      = 3
	operationStartTLS = 9
)

// MaxStartTLSBytes is more than any answer to START_TLS takes, length excluded.
const MaxStartTLSBytes = 256

// AppendStartTLS appends the frame, of version 3, that asks a bookie to begin a
// TLS handshake on the connection. It comes before any other frame.
func AppendStartTLS(dst []byte, txnID uint64) []byte { return appendStartTLS(dst, txnID, false, OK) }

// AppendStartTLSResponse appends a bookie's answer. After OK the handshake begins.
func AppendStartTLSResponse(dst []byte, txnID uint64, code Code) []byte {
	return appendStartTLS(dst, txnID, true, code)
}

func appendStartTLS(dst []byte, txnID uint64, answer bool, code Code) []byte {
	at := len(dst)
	dst = append(dst, 0, 0, 0, 0)
	var header []byte
	header = protowire.AppendVarint(protowire.AppendTag(header, fieldVersion, protowire.VarintType), versionThree)
	header = protowire.AppendVarint(protowire.AppendTag(header, fieldOperation, protowire.VarintType), operationStartTLS)
	header = protowire.AppendVarint(protowire.AppendTag(header, fieldTxnID, protowire.VarintType), txnID)
	dst = protowire.AppendBytes(protowire.AppendTag(dst, fieldHeader, protowire.BytesType), header)
	if answer {
		dst = protowire.AppendVarint(protowire.AppendTag(dst, fieldStatus, protowire.VarintType), uint64(code))
	}
	dst = protowire.AppendBytes(protowire.AppendTag(dst, fieldStartTLS, protowire.BytesType), nil)
	binary.BigEndian.PutUint32(dst[at:], uint32(len(dst)-at-LengthBytes))
	return dst
}

// StartTLS is a START_TLS request, or its answer.
type StartTLS struct {
	TxnID uint64
	// Status is a code of version 3, in which OK is 0 and EBADREQ, the answer of
	// a bookie without TLS, 404.
	Status Code
}

// ParseStartTLS decodes the payload of a frame with either. ErrMalformed if it is
// any other message.
func ParseStartTLS(frame []byte) (StartTLS, error) {
	var s StartTLS
	var version, operation uint64
	err := eachField(frame, func(number protowire.Number, v uint64, msg []byte) error {
		switch number {
		case fieldHeader:
			return eachField(msg, func(number protowire.Number, v uint64, _ []byte) error {
				switch number {
				case fieldVersion:
					version = v
				case fieldOperation:
					operation = v
				case fieldTxnID:
					s.TxnID = v
				}
				return nil
			})
		case fieldStatus:
			s.Status = Code(v)
		}
		return nil
	})
	if err != nil {
		return StartTLS{}, fmt.Errorf("%w: START_TLS: %w", ErrMalformed, err)
	}
	if version != versionThree || operation != operationStartTLS {
		return StartTLS{}, fmt.Errorf("%w: operation %d of version %d where START_TLS was expected", ErrMalformed, operation, version)
	}
	return s, nil
}

// eachField calls f with every field of a message: v of a varint, msg of bytes.
func eachField(b []byte, f func(number protowire.Number, v uint64, msg []byte) error) error {
	for len(b) > 0 {
		number, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return protowire.ParseError(n)
		}
		b = b[n:]
		var v uint64
		var msg []byte
		switch typ {
		case protowire.VarintType:
			v, n = protowire.ConsumeVarint(b)
		case protowire.BytesType:
			msg, n = protowire.ConsumeBytes(b)
		default:
			n = protowire.ConsumeFieldValue(number, typ, b)
		}
		if n < 0 {
			return protowire.ParseError(n)
		}
		b = b[n:]
		if err := f(number, v, msg); err != nil {
			return err
		}
	}
	return nil
}
