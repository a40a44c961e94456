package forward

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"time"
)

// How two nodes come to trust each other on a new link. Frames as in
// envelope.go, each of at most MaxHandshakeBytes, in this order:
//
//	dialler ─► hello    int16 key (0x7FE8) · int16 oldest · int16 newest version of the protocol
//	                    uint8 secret: 1 if the sender has one
//	                    int32 own node id · int32 node id that it wants to talk to
//	                    uint32 largest request that it takes
//	                    32 random bytes
//	                    uint16 length · cluster id
//	                    uint16 length · incarnation of the own process
//	                    uint64 what the own clock shows, microseconds: that of envelopes
//	◄─ acceptor hello   the same; oldest and newest are the version chosen
//	dialler ─► proof    int16 key (0x7FE9) · HMAC-SHA256, or as many zeros without a secret
//	◄─ acceptor proof   the same
//
// or, instead of any of them, after which the link is closed:
//
//	refusal   int16 key (0x7FEA) · uint8 reason · text for people
//
// A proof is HMAC-SHA256(secret, role ‖ hello of the dialler ‖ hello of the
// acceptor), each hello with its size before it. Both hellos hold fresh random
// bytes, so a proof is of no use on another link; the roles differ, so it is of no
// use in the other direction. The dialler proves first: who merely connects gets
// nothing on which secrets could be tried.
//
// Without a secret it is TLS that proves, by certificates in both directions.
const (
	// KeyHello is the API key of the first frame of a link.
	KeyHello   = 0x7FE8
	keyProof   = 0x7FE9
	keyRefusal = 0x7FEA

	// MaxHandshakeBytes bounds each frame of a handshake.
	MaxHandshakeBytes = 1024

	// MinSecretBytes is the shortest secret that nodes may share.
	MinSecretBytes = 16

	oldestVersion = 1
	newestVersion = 1

	nonceBytes      = 32
	fixedHelloBytes = 2 + 2 + 2 + 1 + 4 + 4 + 4 + nonceBytes
	maxIDBytes      = 256
	clockBytes      = 8
	maxRefusalBytes = 512

	roleDialler  = "quire link 1: dialler\x00"
	roleAcceptor = "quire link 1: acceptor\x00"
)

// Why a handshake fails. What is wrapped around them names both sides.
var (
	ErrHandshake   = errors.New("not a node of this system")   // what came is no handshake
	ErrVersion     = errors.New("no common link protocol")     // versions too far apart
	ErrCluster     = errors.New("node of another cluster")     //
	ErrOtherNode   = errors.New("another node than expected")  // or another process of that id
	ErrSecret      = errors.New("secrets of the nodes differ") // or one side has none
	errRefusedText = errors.New("refused by the other side")
)

// reasons are ErrHandshake and so on, as they are on the wire.
var reasons = [...]error{1: ErrHandshake, 2: ErrVersion, 3: ErrCluster, 4: ErrOtherNode, 5: ErrSecret}

// Identity is who a node is.
type Identity struct {
	Cluster     string
	Node        int32
	Incarnation string // of the process
}

func (i Identity) check() error {
	if i.Cluster == "" || len(i.Cluster) > maxIDBytes || len(i.Incarnation) > maxIDBytes || i.Node < 0 {
		return fmt.Errorf("a link needs a node id, and a cluster id and an incarnation of at most %d bytes", maxIDBytes)
	}
	return nil
}

// hello is one side's first frame.
type hello struct {
	Identity
	oldest, newest  int16
	secret          bool
	wants           int32
	maxMessageBytes uint32
	nonce           [nonceBytes]byte
	clock           time.Duration
}

func (h *hello) append(dst []byte) []byte {
	dst = binary.BigEndian.AppendUint16(dst, KeyHello)
	dst = binary.BigEndian.AppendUint16(dst, uint16(h.oldest))
	dst = binary.BigEndian.AppendUint16(dst, uint16(h.newest))
	if h.secret {
		dst = append(dst, 1)
	} else {
		dst = append(dst, 0)
	}
	dst = binary.BigEndian.AppendUint32(dst, uint32(h.Node))
	dst = binary.BigEndian.AppendUint32(dst, uint32(h.wants))
	dst = binary.BigEndian.AppendUint32(dst, h.maxMessageBytes)
	dst = append(dst, h.nonce[:]...)
	for _, s := range [...]string{h.Cluster, h.Incarnation} {
		dst = binary.BigEndian.AppendUint16(dst, uint16(len(s)))
		dst = append(dst, s...)
	}
	return binary.BigEndian.AppendUint64(dst, uint64(h.clock.Microseconds()))
}

// parseHello reads a hello. What follows the fields that it knows belongs to
// later versions, and is proved with the rest.
func parseHello(frame []byte) (h hello, err error) {
	if len(frame) < fixedHelloBytes || len(frame) > MaxHandshakeBytes || binary.BigEndian.Uint16(frame) != KeyHello || frame[6] > 1 {
		return hello{}, fmt.Errorf("%w: it does not say hello", ErrHandshake)
	}
	h.oldest = int16(binary.BigEndian.Uint16(frame[2:]))
	h.newest = int16(binary.BigEndian.Uint16(frame[4:]))
	h.secret = frame[6] == 1
	h.Node = int32(binary.BigEndian.Uint32(frame[7:]))
	h.wants = int32(binary.BigEndian.Uint32(frame[11:]))
	h.maxMessageBytes = binary.BigEndian.Uint32(frame[15:])
	copy(h.nonce[:], frame[19:])
	rest := frame[fixedHelloBytes:]
	for _, s := range [...]*string{&h.Cluster, &h.Incarnation} {
		if len(rest) < 2 {
			return hello{}, fmt.Errorf("%w: its hello ends early", ErrHandshake)
		}
		n := int(binary.BigEndian.Uint16(rest))
		rest = rest[2:]
		if n > maxIDBytes || n > len(rest) {
			return hello{}, fmt.Errorf("%w: its hello has an id of %d bytes", ErrHandshake, n)
		}
		*s, rest = string(rest[:n]), rest[n:]
	}
	if len(rest) < clockBytes {
		return hello{}, fmt.Errorf("%w: its hello ends early", ErrHandshake)
	}
	if h.clock, err = parseClock(rest); err != nil {
		return hello{}, fmt.Errorf("%w: %w", ErrHandshake, err)
	}
	return h, nil
}

func refusal(why error) []byte {
	reason := byte(1)
	for i, e := range reasons {
		if e != nil && errors.Is(why, e) {
			reason = byte(i)
		}
	}
	text := why.Error()
	text = text[:min(len(text), maxRefusalBytes)]
	return append([]byte{keyRefusal >> 8, keyRefusal & 0xFF, reason}, text...)
}

// refused returns the error that a refusal stands for, nil if frame is none.
func refused(frame []byte) error {
	if len(frame) < 3 || len(frame) > MaxHandshakeBytes || binary.BigEndian.Uint16(frame) != keyRefusal {
		return nil
	}
	reason := error(ErrHandshake)
	if i := int(frame[2]); i < len(reasons) && reasons[i] != nil {
		reason = reasons[i]
	}
	return fmt.Errorf("%w: %w: %q", errRefusedText, reason, frame[3:])
}

// prove returns a proof, zeros without a secret.
func prove(secret []byte, role string, diallers, acceptors []byte) []byte {
	if len(secret) == 0 {
		return make([]byte, sha256.Size)
	}
	mac := hmac.New(sha256.New, secret)
	mac.Write([]byte(role))
	for _, h := range [...][]byte{diallers, acceptors} {
		var size [4]byte
		binary.BigEndian.PutUint32(size[:], uint32(len(h)))
		mac.Write(size[:])
		mac.Write(h)
	}
	return mac.Sum(nil)
}

// checkProof says whether frame is the proof wanted. It takes the same time
// whatever is wrong about it.
func checkProof(frame, want []byte) error {
	if len(frame) < 2 || binary.BigEndian.Uint16(frame) != keyProof {
		return fmt.Errorf("%w: it sends no proof", ErrHandshake)
	}
	if !hmac.Equal(frame[2:], want) {
		return fmt.Errorf("%w: its proof is wrong", ErrSecret)
	}
	return nil
}

func proof(mac []byte) []byte {
	return append([]byte{keyProof >> 8, keyProof & 0xFF}, mac...)
}

func checkSecret(own []byte, theirs bool) error {
	switch {
	case len(own) > 0 && !theirs:
		return fmt.Errorf("%w: this node has one, the other has none", ErrSecret)
	case len(own) == 0 && theirs:
		return fmt.Errorf("%w: this node has none, the other has one", ErrSecret)
	}
	return nil
}

// Acceptor is the receiving side of a handshake.
type Acceptor struct {
	Self            Identity
	Secret          []byte // empty: TLS proves
	MaxMessageBytes int    // largest Kafka request that it takes

	// Peer is who the other side is; valid once Receive has said done.
	Peer Identity
	// Clock is what the other side's clock showed when it said hello: before the first
	// frame that Receive took without an error.
	Clock time.Duration

	hellos [2][]byte // the dialler's and the own one, once they are there
}

// Receive takes the next frame, without its size, and returns what is to be
// sent: also with an error, after which the link is closed. done says that the
// other side has proved itself. The errors are ErrHandshake, ErrVersion,
// ErrCluster, ErrOtherNode and ErrSecret.
func (a *Acceptor) Receive(frame []byte) (reply []byte, done bool, err error) {
	if a.hellos[0] == nil {
		reply, err = a.greet(frame)
	} else {
		err = checkProof(frame, prove(a.Secret, roleDialler, a.hellos[0], a.hellos[1]))
		if err == nil {
			return proof(prove(a.Secret, roleAcceptor, a.hellos[0], a.hellos[1])), true, nil
		}
	}
	if err != nil {
		return refusal(err), false, err
	}
	return reply, false, nil
}

func (a *Acceptor) greet(frame []byte) (reply []byte, err error) {
	h, err := parseHello(frame)
	if err != nil {
		return nil, err
	}
	version := min(h.newest, newestVersion)
	switch {
	case version < max(h.oldest, oldestVersion):
		return nil, fmt.Errorf("%w: this node speaks %d to %d, the other %d to %d", ErrVersion, oldestVersion, newestVersion, h.oldest, h.newest)
	case h.Cluster != a.Self.Cluster:
		return nil, fmt.Errorf("%w: this is %s", ErrCluster, a.Self.Cluster)
	case h.wants != a.Self.Node:
		return nil, fmt.Errorf("%w: node %d wants node %d, this is node %d", ErrOtherNode, h.Node, h.wants, a.Self.Node)
	case h.Node == a.Self.Node && h.Incarnation != a.Self.Incarnation:
		return nil, fmt.Errorf("%w: another process says that it is node %d as well", ErrOtherNode, h.Node)
	}
	if err := checkSecret(a.Secret, h.secret); err != nil {
		return nil, err
	}
	own := hello{Identity: a.Self, oldest: version, newest: version, secret: len(a.Secret) > 0, wants: h.Node, maxMessageBytes: uint32(a.MaxMessageBytes)}
	rand.Read(own.nonce[:])
	a.Peer, a.Clock = h.Identity, h.clock
	a.hellos = [2][]byte{append([]byte(nil), frame...), own.append(nil)}
	return a.hellos[1], nil
}

// dialler is the other side of a handshake. It begins with what greet returns.
type dialler struct {
	self        Identity
	secret      []byte
	node        int32  // that it wants to talk to
	incarnation string // of that node
	clock       time.Duration

	maxMessageBytes int // largest Kafka request that the other side takes

	hellos  [2][]byte
	proving bool
}

func (d *dialler) greet() []byte {
	h := hello{Identity: d.self, oldest: oldestVersion, newest: newestVersion, secret: len(d.secret) > 0, wants: d.node, clock: d.clock}
	rand.Read(h.nonce[:])
	d.hellos[0] = h.append(nil)
	return d.hellos[0]
}

// receive is as Acceptor.Receive.
func (d *dialler) receive(frame []byte) (reply []byte, done bool, err error) {
	if err := refused(frame); err != nil {
		return nil, false, err
	}
	if !d.proving {
		reply, err = d.greeted(frame)
	} else {
		err = checkProof(frame, prove(d.secret, roleAcceptor, d.hellos[0], d.hellos[1]))
		if err == nil {
			return nil, true, nil
		}
	}
	if err != nil {
		return refusal(err), false, err
	}
	return reply, false, nil
}

func (d *dialler) greeted(frame []byte) (reply []byte, err error) {
	h, err := parseHello(frame)
	if err != nil {
		return nil, err
	}
	switch {
	case h.oldest != h.newest || h.newest < oldestVersion || h.newest > newestVersion:
		return nil, fmt.Errorf("%w: this node speaks %d to %d, the other %d to %d", ErrVersion, oldestVersion, newestVersion, h.oldest, h.newest)
	case h.Cluster != d.self.Cluster:
		return nil, fmt.Errorf("%w: this is %s", ErrCluster, d.self.Cluster)
	case h.Node != d.node || h.wants != d.self.Node:
		return nil, fmt.Errorf("%w: node %d is wanted, node %d answers", ErrOtherNode, d.node, h.Node)
	case h.Incarnation != d.incarnation:
		return nil, fmt.Errorf("%w: node %d is another process than the one that is registered", ErrOtherNode, d.node)
	}
	if err := checkSecret(d.secret, h.secret); err != nil {
		return nil, err
	}
	d.maxMessageBytes = int(h.maxMessageBytes)
	d.hellos[1] = append([]byte(nil), frame...)
	d.proving = true
	return proof(prove(d.secret, roleDialler, d.hellos[0], d.hellos[1])), nil
}
