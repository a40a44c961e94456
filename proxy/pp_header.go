package proxy

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"net/netip"
	"strconv"
	"strings"
)

// The PROXY protocol, as in doc/proxy-protocol.txt of HAProxy: what a load
// balancer says first on a connection, so that the other end knows whose it is.
//
//	v1  PROXY TCP4 203.0.113.7 192.0.2.1 51234 9092\r\n
//	v2  signature, version and command, family, length; addresses, TLVs
const (
	ppMaxLineBytes  = 107 // of v1, with its end
	ppSniffBytes    = 12  // the v2 signature; less than the shortest line of v1
	ppFixedBytes    = 16  // of v2
	ppMaxBlockBytes = 4 << 10

	ppLocal = 0x20 // version and command: the sender's own, a health check for one
	ppProxy = 0x21

	ppTypeCRC32C = 0x03
	ppUnixBytes  = 216 // two paths
)

const (
	ppLine      = "PROXY "
	ppSignature = "\r\n\r\n\x00\r\nQUIT\n"
)

// errPPHeader is what every unreadable header is.
var errPPHeader = errors.New("bad PROXY protocol header")

func ppError(format string, args ...any) error {
	return fmt.Errorf("%w: %w", errPPHeader, fmt.Errorf(format, args...))
}

// ppHeader reads one header, however its bytes come, and not a byte more.
type ppHeader struct {
	b    []byte
	n    int // bytes of b that are there
	want int // bytes that the header surely has

	// Once it is whole. source is the client; it is not valid if the header
	// names none, and then the connection is whose the socket says.
	local  bool
	source netip.AddrPort
}

// space returns where the next bytes are to be put.
func (h *ppHeader) space() []byte {
	if h.b == nil {
		h.b, h.want = make([]byte, ppMaxLineBytes), ppSniffBytes
	}
	return h.b[h.n:h.want]
}

// filled takes note of n more bytes and says whether the header is whole.
func (h *ppHeader) filled(n int) (whole bool, err error) {
	h.n += n
	p := h.b[:h.n]
	switch {
	case h.n <= ppSniffBytes && !strings.HasPrefix(ppSignature, string(p)) && !strings.HasPrefix(string(p), ppLine[:min(h.n, len(ppLine))]):
		return false, ppError("it begins with %q", p)
	case h.n < h.want:
		return false, nil
	case p[0] == ppLine[0]:
		return h.line(p)
	default:
		return h.binary(p)
	}
}

// line looks for the end of a v1 header. It asks for two bytes at a time, since
// the end is two bytes and nothing behind it may be read.
func (h *ppHeader) line(p []byte) (whole bool, err error) {
	if i := bytes.IndexAny(p, "\r\n"); i < 0 {
		h.want = h.n + 2
		if h.want > ppMaxLineBytes {
			return false, ppError("a line of more than %d bytes", ppMaxLineBytes)
		}
		return false, nil
	} else if p[i] == '\n' || i+2 < len(p) || i+2 == len(p) && p[i+1] != '\n' {
		return false, ppError("%q does not end as a line does", p)
	} else if i+2 > len(p) {
		h.want = h.n + 1
		if h.want > ppMaxLineBytes {
			return false, ppError("a line of more than %d bytes", ppMaxLineBytes)
		}
		return false, nil
	}
	text := string(p[len(ppLine) : len(p)-2])
	if text == "UNKNOWN" || strings.HasPrefix(text, "UNKNOWN ") {
		return true, nil
	}
	fields := strings.Split(text, " ")
	if len(fields) != 5 || fields[0] != "TCP4" && fields[0] != "TCP6" {
		return false, ppError("%q is not PROXY TCP4 or TCP6 with two addresses and two ports", p)
	}
	source, err := ppEndpoint(fields[0], fields[1], fields[3])
	if err != nil {
		return false, err
	}
	if _, err := ppEndpoint(fields[0], fields[2], fields[4]); err != nil {
		return false, err
	}
	h.source = source
	return true, nil
}

func ppEndpoint(family, ip, port string) (netip.AddrPort, error) {
	addr, err := netip.ParseAddr(ip)
	if err != nil || addr.Is4() != (family == "TCP4") || addr.Zone() != "" {
		return netip.AddrPort{}, ppError("%q is no address of %s", ip, family)
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || strconv.FormatUint(n, 10) != port {
		return netip.AddrPort{}, ppError("%q is no port", port)
	}
	return netip.AddrPortFrom(addr.Unmap(), uint16(n)), nil
}

// binary goes on with a v2 header: first to its fixed part, then to its end.
func (h *ppHeader) binary(p []byte) (whole bool, err error) {
	if h.n < ppFixedBytes {
		h.want = ppFixedBytes
		return false, nil
	}
	block := int(binary.BigEndian.Uint16(p[14:]))
	if h.n == ppFixedBytes {
		if p[12] != ppLocal && p[12] != ppProxy {
			return false, ppError("version and command are %#02x", p[12])
		}
		if block > ppMaxBlockBytes {
			return false, ppError("%d bytes of addresses and TLVs, at most %d are read", block, ppMaxBlockBytes)
		}
		if h.want = ppFixedBytes + block; h.n < h.want {
			if h.want > len(h.b) {
				h.b = append(make([]byte, 0, h.want), p...)[:h.want]
			}
			return false, nil
		}
	}
	h.local = p[12] == ppLocal
	err = h.block(p)
	return err == nil, err
}

// block reads what follows the fixed part of a v2 header. What a LOCAL header
// has there means nothing, as long as its checksum is right.
func (h *ppHeader) block(p []byte) error {
	b := p[ppFixedBytes:]
	addresses, source := 0, netip.AddrPort{}
	switch family := p[13]; family {
	case 0x11: // TCP over IPv4
		if addresses = 12; len(b) >= addresses {
			source = netip.AddrPortFrom(netip.AddrFrom4([4]byte(b)), binary.BigEndian.Uint16(b[8:]))
		}
	case 0x21: // TCP over IPv6
		if addresses = 36; len(b) >= addresses {
			source = netip.AddrPortFrom(netip.AddrFrom16([16]byte(b)).Unmap(), binary.BigEndian.Uint16(b[32:]))
		}
	case 0x31: // a stream on a unix socket, which has no address that is of use
		addresses = ppUnixBytes
	case 0x00: // unspecified
	default:
		if h.local {
			return nil
		}
		return ppError("family and protocol are %#02x", family)
	}
	if addresses > len(b) {
		if h.local {
			return nil
		}
		return ppError("%d bytes are too few for the addresses of family %#02x", len(b), p[13])
	}
	if err := ppCheckTLVs(p, ppFixedBytes+addresses); err != nil && (!h.local || errors.Is(err, errPPChecksum)) {
		return err
	}
	if !h.local {
		h.source = source
	}
	return nil
}

var (
	errPPChecksum = errors.New("the checksum does not match")
	castagnoli    = crc32.MakeTable(crc32.Castagnoli)
)

// ppCheckTLVs goes through the TLVs of header p, which begin at from. They must
// fill it, and a checksum among them must be right; none is of interest otherwise.
func ppCheckTLVs(p []byte, from int) error {
	sum := -1 // where the checksum is
	for at := from; at < len(p); {
		if len(p)-at < 3 {
			return ppError("a TLV is cut off")
		}
		kind, length := p[at], int(binary.BigEndian.Uint16(p[at+1:]))
		at += 3
		if len(p)-at < length {
			return ppError("TLV %#02x is cut off", kind)
		}
		if kind == ppTypeCRC32C {
			if length != crc32.Size || sum >= 0 {
				return ppError("%w: a second one, or one of %d bytes", errPPChecksum, length)
			}
			sum = at
		}
		at += length
	}
	if sum < 0 {
		return nil
	}
	// It is the checksum of the whole header with zeros in its own place.
	var zeros [crc32.Size]byte
	got := crc32.Update(crc32.Checksum(p[:sum], castagnoli), castagnoli, zeros[:])
	got = crc32.Update(got, castagnoli, p[sum+crc32.Size:])
	if want := binary.BigEndian.Uint32(p[sum:]); got != want {
		return ppError("%w: %#08x, not %#08x", errPPChecksum, got, want)
	}
	return nil
}
