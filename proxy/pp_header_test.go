package proxy

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"net/netip"
	"strings"
	"testing"
)

// ppFeed gives a header its bytes in reads of at most chunk, and returns how many it took.
func ppFeed(h *ppHeader, stream []byte, chunk int) (taken int, whole bool, err error) {
	for !whole && err == nil && taken < len(stream) {
		n := copy(h.space()[:min(chunk, len(h.space()))], stream[taken:])
		taken += n
		whole, err = h.filled(n)
	}
	return taken, whole, err
}

// ppV2 writes a v2 header. With sum it gets a CRC32C TLV at the end.
func ppV2(command, family byte, block []byte, sum bool) []byte {
	b := append([]byte(ppSignature), command, family, 0, 0)
	b = append(b, block...)
	if sum {
		b = append(b, ppTypeCRC32C, 0, 4, 0, 0, 0, 0)
	}
	binary.BigEndian.PutUint16(b[14:], uint16(len(b)-ppFixedBytes))
	if sum {
		binary.BigEndian.PutUint32(b[len(b)-4:], crc32.Checksum(b, castagnoli))
	}
	return b
}

// ppBlock is the addresses of a client and of a load balancer.
func ppBlock(source netip.AddrPort) []byte {
	to := netip.MustParseAddrPort("192.0.2.1:9092")
	if source.Addr().Is6() {
		to = netip.MustParseAddrPort("[2001:db8::1]:9092")
	}
	b := append(source.Addr().AsSlice(), to.Addr().AsSlice()...)
	b = binary.BigEndian.AppendUint16(b, source.Port())
	return binary.BigEndian.AppendUint16(b, to.Port())
}

func ppTLV(kind byte, value string) []byte {
	return append(binary.BigEndian.AppendUint16([]byte{kind}, uint16(len(value))), value...)
}

var (
	ppFour = netip.MustParseAddrPort("203.0.113.7:51234")
	ppSix  = netip.MustParseAddrPort("[2001:db8::7]:51234")
)

func TestPPHeader(t *testing.T) {
	four, six := ppBlock(ppFour), ppBlock(ppSix)
	mapped := append(netip.MustParseAddr("::ffff:203.0.113.7").AsSlice(), six[16:]...)
	// What HAProxy 2.6 sends of a client with TLS and a certificate.
	rich := bytes.Join([][]byte{four, ppTLV(0x02, "p1.kafka.example.com"), ppTLV(0x05, ""),
		ppTLV(0x20, "\x07\x00\x00\x00\x00\x21\x00\x07TLSv1.3\x22\x00\x0aproducer-1"), ppTLV(0x04, "\x00\x00"), ppTLV(0xe0, "x")}, nil)
	for _, c := range []struct {
		name   string
		header []byte
		local  bool
		source string // empty: the socket's
	}{
		{"v1 IPv4", []byte("PROXY TCP4 203.0.113.7 192.0.2.1 51234 9092\r\n"), false, ppFour.String()},
		{"v1 IPv6", []byte("PROXY TCP6 2001:db8::7 2001:db8::1 51234 9092\r\n"), false, ppSix.String()},
		{"v1 shortest", []byte("PROXY TCP4 1.1.1.1 1.1.1.1 0 0\r\n"), false, "1.1.1.1:0"},
		{"v1 IPv4 in IPv6", []byte("PROXY TCP6 ::ffff:203.0.113.7 2001:db8::1 51234 9092\r\n"), false, ppFour.String()},
		{"v1 unknown", []byte("PROXY UNKNOWN\r\n"), false, ""},
		{"v1 unknown and more", []byte("PROXY UNKNOWN ffff:f...f:ffff what ever\r\n"), false, ""},
		{"v1 longest", []byte("PROXY UNKNOWN " + strings.Repeat("x", 91) + "\r\n"), false, ""},
		{"v2 IPv4", ppV2(ppProxy, 0x11, four, false), false, ppFour.String()},
		{"v2 IPv6", ppV2(ppProxy, 0x21, six, false), false, ppSix.String()},
		{"v2 IPv4 in IPv6", ppV2(ppProxy, 0x21, mapped, false), false, ppFour.String()},
		{"v2 checksum", ppV2(ppProxy, 0x11, four, true), false, ppFour.String()},
		{"v2 TLVs", ppV2(ppProxy, 0x11, rich, false), false, ppFour.String()},
		{"v2 TLVs and checksum", ppV2(ppProxy, 0x11, rich, true), false, ppFour.String()},
		{"v2 checksum first", checksumFirst(four, ppTLV(0x02, "name")), false, ppFour.String()},
		{"v2 longest", ppV2(ppProxy, 0x11, append(four, ppTLV(0xe0, strings.Repeat("x", ppMaxBlockBytes-15))...), false), false, ppFour.String()},
		{"v2 unix", ppV2(ppProxy, 0x31, make([]byte, ppUnixBytes), false), false, ""},
		{"v2 unspecified", ppV2(ppProxy, 0x00, ppTLV(0x02, "name"), false), false, ""},
		{"v2 local", ppV2(ppLocal, 0x00, nil, false), true, ""},
		{"v2 local with addresses", ppV2(ppLocal, 0x11, four, true), true, ""},
		{"v2 local with anything", ppV2(ppLocal, 0xff, []byte("anything"), false), true, ""},
		{"v2 local with cut TLVs", ppV2(ppLocal, 0x00, []byte{1, 0xff}, false), true, ""},
		{"v2 local with cut addresses", ppV2(ppLocal, 0x21, four, false), true, ""},
	} {
		for _, chunk := range []int{1, 2, 3, 13, 4 << 10} {
			stream := append(bytes.Clone(c.header), "\x00\x00\x00\x08more"...)
			h := new(ppHeader)
			taken, whole, err := ppFeed(h, stream, chunk)
			if err != nil || !whole {
				t.Errorf("%s by %d: whole %v, %v", c.name, chunk, whole, err)
				continue
			}
			if taken != len(c.header) {
				t.Errorf("%s by %d: took %d bytes of %d", c.name, chunk, taken, len(c.header))
			}
			source := ""
			if h.source.IsValid() {
				source = h.source.String()
			}
			if h.local != c.local || source != c.source {
				t.Errorf("%s by %d: local %v, source %q, want %v, %q", c.name, chunk, h.local, source, c.local, c.source)
			}
		}
	}
}

func checksumFirst(block, tlv []byte) []byte {
	b := ppV2(ppProxy, 0x11, append(append(bytes.Clone(block), ppTLV(ppTypeCRC32C, "\x00\x00\x00\x00")...), tlv...), false)
	binary.BigEndian.PutUint32(b[ppFixedBytes+len(block)+3:], crc32.Checksum(b, castagnoli))
	return b
}

func TestPPHeaderRefused(t *testing.T) {
	four, six := ppBlock(ppFour), ppBlock(ppSix)
	flipped := func(b []byte, at int) []byte {
		b[at] ^= 0x01
		return b
	}
	length := func(b []byte, n int) []byte {
		binary.BigEndian.PutUint16(b[14:], uint16(n))
		return b
	}
	for _, c := range []struct {
		name, want string // part of the error
		stream     []byte
	}{
		{"Kafka", "begins with", []byte("\x00\x00\x00\x15\x00\x12\x00\x03")},
		{"TLS", "begins with", []byte("\x16\x03\x01\x02\x00\x01")},
		{"HTTP", "begins with", []byte("GET / HTTP/1.1\r\n")},
		{"almost v1", "begins with", []byte("PROXIES ")},
		{"almost v2", "begins with", []byte("\r\n\r\n\x00\r\nQUIX")},
		{"lower case", "begins with", []byte("proxy TCP4 1.1.1.1 1.1.1.1 0 0\r\n")},
		{"v1 line feed alone", "does not end", []byte("PROXY TCP4 1.1.1.1 1.1.1.1 0 0\nmore")},
		{"v1 carriage return within", "does not end", []byte("PROXY TCP4 1.1.1.1\r1.1.1.1 0 0\r\n")},
		{"v1 end in the first bytes", "does not end", []byte("PROXY A\r\n\r\n\r\n")},
		{"v1 too long", "more than 107 bytes", []byte("PROXY UNKNOWN " + strings.Repeat("x", 92) + "\r\n")},
		{"v1 endless", "more than 107 bytes", bytes.Repeat([]byte("PROXY "), 1000)},
		{"v1 UDP", "is not PROXY TCP4", []byte("PROXY UDP4 1.1.1.1 1.1.1.1 0 0\r\n")},
		{"v1 no ports", "is not PROXY TCP4", []byte("PROXY TCP4 1.1.1.1 1.1.1.1\r\n")},
		{"v1 two spaces", "is not PROXY TCP4", []byte("PROXY TCP4 1.1.1.1  1.1.1.1 0 0\r\n")},
		{"v1 space at the end", "is not PROXY TCP4", []byte("PROXY TCP4 1.1.1.1 1.1.1.1 0 0 \r\n")},
		{"v1 unknown and letters", "is not PROXY TCP4", []byte("PROXY UNKNOWNS\r\n")},
		{"v1 family", "no address of TCP4", []byte("PROXY TCP4 ::1 ::1 0 0\r\n")},
		{"v1 other family", "no address of TCP6", []byte("PROXY TCP6 1.1.1.1 1.1.1.1 0 0\r\n")},
		{"v1 zone", "no address of TCP6", []byte("PROXY TCP6 fe80::1%eth0 ::1 0 0\r\n")},
		{"v1 leading zero", "no address of TCP4", []byte("PROXY TCP4 01.1.1.1 1.1.1.1 0 0\r\n")},
		{"v1 name", "no address of TCP4", []byte("PROXY TCP4 localhost 1.1.1.1 0 0\r\n")},
		{"v1 bad destination", "no address of TCP4", []byte("PROXY TCP4 1.1.1.1 1.1.1 0 0\r\n")},
		{"v1 port too large", "no port", []byte("PROXY TCP4 1.1.1.1 1.1.1.1 65536 0\r\n")},
		{"v1 port with zero", "no port", []byte("PROXY TCP4 1.1.1.1 1.1.1.1 080 0\r\n")},
		{"v1 port with sign", "no port", []byte("PROXY TCP4 1.1.1.1 1.1.1.1 0 +1\r\n")},
		{"v2 version", "version and command", ppV2(0x11, 0x11, four, false)},
		{"v2 command", "version and command", ppV2(0x22, 0x11, four, false)},
		{"v2 family", "family and protocol", ppV2(ppProxy, 0x41, four, false)},
		{"v2 datagrams", "family and protocol", ppV2(ppProxy, 0x12, four, false)},
		{"v2 too long", "at most 4096", length(ppV2(ppProxy, 0x11, four, false), 4097)},
		{"v2 short addresses", "too few", ppV2(ppProxy, 0x11, four[:11], false)},
		{"v2 addresses of the other family", "too few", ppV2(ppProxy, 0x21, four, false)},
		{"v2 short unix", "too few", ppV2(ppProxy, 0x31, six, false)},
		{"v2 cut TLV head", "a TLV is cut off", ppV2(ppProxy, 0x11, append(bytes.Clone(four), 2, 0), false)},
		{"v2 cut TLV", "TLV 0x02 is cut off", ppV2(ppProxy, 0x11, append(bytes.Clone(four), 2, 0, 9, 'x'), false)},
		{"v2 TLV of the greatest length", "TLV 0xe0 is cut off", ppV2(ppProxy, 0x11, append(bytes.Clone(four), 0xe0, 0xff, 0xff), false)},
		{"v2 damaged address", "checksum", flipped(ppV2(ppProxy, 0x11, four, true), ppFixedBytes)},
		{"v2 damaged checksum", "checksum", flipped(ppV2(ppProxy, 0x11, four, true), ppFixedBytes+len(four)+6)},
		{"v2 made local", "checksum", flipped(ppV2(ppProxy, 0x11, four, true), 12)},
		{"v2 two checksums", "checksum", ppV2(ppProxy, 0x11, append(bytes.Clone(four), ppTLV(ppTypeCRC32C, "abcd")...), true)},
		{"v2 short checksum", "checksum", ppV2(ppProxy, 0x11, append(bytes.Clone(four), ppTLV(ppTypeCRC32C, "abc")...), false)},
	} {
		for _, chunk := range []int{1, 5, 4 << 10} {
			taken, whole, err := ppFeed(new(ppHeader), c.stream, chunk)
			if whole || err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%s by %d: whole %v after %d bytes, %v; want %q", c.name, chunk, whole, taken, err, c.want)
			}
		}
	}
}

// FuzzPPHeader: the same verdict however the bytes come, no byte too many, no
// address from a header that is the load balancer's own; and a header that is
// read as v2 is refused once a bit of it is flipped under a checksum.
func FuzzPPHeader(f *testing.F) {
	f.Add([]byte("PROXY TCP4 203.0.113.7 192.0.2.1 51234 9092\r\nrest"), uint8(1))
	f.Add([]byte("PROXY TCP6 2001:db8::7 2001:db8::1 51234 9092\r\n"), uint8(2))
	f.Add([]byte("PROXY UNKNOWN ffff\r\n"), uint8(7))
	f.Add(ppV2(ppProxy, 0x11, ppBlock(ppFour), true), uint8(3))
	f.Add(ppV2(ppProxy, 0x21, append(ppBlock(ppSix), ppTLV(0x02, "name")...), true), uint8(16))
	f.Add(ppV2(ppLocal, 0, nil, false), uint8(12))
	f.Fuzz(func(t *testing.T, stream []byte, chunk uint8) {
		at, once := new(ppHeader), new(ppHeader)
		taken, whole, err := ppFeed(at, stream, int(chunk)+1)
		taken1, whole1, err1 := ppFeed(once, stream, len(stream)+1)
		if whole != whole1 || (err == nil) != (err1 == nil) {
			t.Fatalf("by %d bytes: whole %v, %v; at once: whole %v, %v", int(chunk)+1, whole, err, whole1, err1)
		}
		if !whole {
			if err == nil && taken != len(stream) {
				t.Fatalf("neither whole nor refused, and took %d bytes of %d", taken, len(stream))
			}
			return
		}
		if taken != taken1 || at.source != once.source || at.local != once.local {
			t.Fatalf("%d bytes, %v, %v; at once %d, %v, %v", taken, at.source, at.local, taken1, once.source, once.local)
		}
		if at.local && at.source.IsValid() || taken > ppFixedBytes+ppMaxBlockBytes {
			t.Fatalf("a header of %d bytes, local %v, from %v", taken, at.local, at.source)
		}
		header := stream[:taken]
		if again, ok, _ := ppFeed(new(ppHeader), header, len(header)); !ok || again != taken {
			t.Fatal("the header alone is not whole")
		}
		if header[0] == ppLine[0] {
			if !bytes.HasSuffix(header, []byte("\r\n")) || bytes.Count(header, []byte("\n")) != 1 {
				t.Fatalf("%q is no line", header)
			}
			return
		}
		if !at.source.IsValid() {
			return
		}
		sealed := ppV2(header[12], header[13], ppBlock(at.source), true)
		if at.source.Addr().Is4() != (header[13] == 0x11) {
			return // an address of one family in a header of the other
		}
		h := new(ppHeader)
		if _, ok, err := ppFeed(h, sealed, int(chunk)+1); !ok || h.source != at.source {
			t.Fatalf("%v written again is %v, %v", at.source, h.source, err)
		}
		sealed[ppFixedBytes+int(chunk)%(len(sealed)-ppFixedBytes-7)] ^= 1 << (chunk % 8)
		if _, ok, _ := ppFeed(new(ppHeader), sealed, len(sealed)); ok {
			t.Fatal("a damaged header passed its checksum")
		}
	})
}
