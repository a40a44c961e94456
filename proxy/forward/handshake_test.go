package forward

import (
	"bytes"
	"errors"
	"strings"
	"testing"
)

var (
	nodeOne = Identity{"cluster", 1, "one"}
	nodeTwo = Identity{"cluster", 2, "two"}
	secret  = []byte("sixteen bytes or more")
)

// sides returns both sides of a handshake, of node 2 that dials node 1.
func sides() (*dialler, *Acceptor) {
	return &dialler{self: nodeTwo, secret: secret, node: 1, incarnation: "one"},
		&Acceptor{Self: nodeOne, Secret: secret, MaxMessageBytes: 4711}
}

// shakeHands carries frames between both sides until they are done or one of them refuses.
func shakeHands(d *dialler, a *Acceptor) (dErr, aErr error) {
	frame := d.greet()
	for {
		reply, aDone, err := a.Receive(frame)
		if err != nil {
			_, _, dErr := d.receive(reply)
			return dErr, err
		}
		answer, dDone, err := d.receive(reply)
		if err != nil {
			if answer != nil {
				_, _, aErr = a.Receive(answer)
			}
			return err, aErr
		}
		if dDone != aDone {
			return errors.New("only one side is done"), nil
		}
		if dDone {
			return nil, nil
		}
		frame = answer
	}
}

func TestHandshake(t *testing.T) {
	d, a := sides()
	if dErr, aErr := shakeHands(d, a); dErr != nil || aErr != nil {
		t.Fatal(dErr, aErr)
	}
	if a.Peer != nodeTwo || d.maxMessageBytes != 4711 {
		t.Errorf("peer is %+v, its limit %d", a.Peer, d.maxMessageBytes)
	}
	d, a = sides()
	d.secret, a.Secret = nil, nil // TLS has proved
	if dErr, aErr := shakeHands(d, a); dErr != nil || aErr != nil {
		t.Fatal(dErr, aErr)
	}
}

// Both sides know why a handshake fails.
func TestHandshakeRefused(t *testing.T) {
	for name, c := range map[string]struct {
		change func(d *dialler, a *Acceptor)
		want   error
	}{
		"another secret":      {func(d *dialler, a *Acceptor) { d.secret = []byte("another secret of 16") }, ErrSecret},
		"no secret there":     {func(d *dialler, a *Acceptor) { a.Secret = nil }, ErrSecret},
		"no secret here":      {func(d *dialler, a *Acceptor) { d.secret = nil }, ErrSecret},
		"another cluster":     {func(d *dialler, a *Acceptor) { a.Self.Cluster = "other" }, ErrCluster},
		"another node":        {func(d *dialler, a *Acceptor) { a.Self.Node = 3 }, ErrOtherNode},
		"another incarnation": {func(d *dialler, a *Acceptor) { a.Self.Incarnation = "three" }, ErrOtherNode},
		"own id elsewhere":    {func(d *dialler, a *Acceptor) { d.self.Node = 1 }, ErrOtherNode},
		"no cluster":          {func(d *dialler, a *Acceptor) { d.self.Cluster = "" }, ErrCluster},
	} {
		t.Run(name, func(t *testing.T) {
			d, a := sides()
			c.change(d, a)
			dErr, aErr := shakeHands(d, a)
			if !errors.Is(dErr, c.want) {
				t.Errorf("the dialler says %v", dErr)
			}
			if !errors.Is(aErr, c.want) && !errors.Is(aErr, ErrHandshake) {
				t.Errorf("the acceptor says %v", aErr)
			}
		})
	}
}

func TestHandshakeVersions(t *testing.T) {
	for _, c := range []struct {
		oldest, newest int16
		ok             bool
	}{{1, 1, true}, {0, 1, true}, {1, 9, true}, {2, 9, false}, {0, 0, false}, {-1, -1, false}} {
		_, a := sides()
		h := hello{Identity: nodeTwo, oldest: c.oldest, newest: c.newest, secret: true, wants: 1}
		_, _, err := a.Receive(h.append(nil))
		if c.ok != (err == nil) || !c.ok && !errors.Is(err, ErrVersion) {
			t.Errorf("versions %d to %d: %v", c.oldest, c.newest, err)
		}
	}
}

// Who does not know the secret gets nowhere with what others prove.
func TestProofsCannotBeReused(t *testing.T) {
	t.Run("reflected to the dialler", func(t *testing.T) {
		d, _ := sides()
		mine, err := parseHello(d.greet())
		if err != nil {
			t.Fatal(err)
		}
		// The thief answers with the dialler's own random bytes.
		h := hello{Identity: nodeOne, oldest: 1, newest: 1, secret: true, wants: 2, nonce: mine.nonce}
		proof, _, err := d.receive(h.append(nil))
		if err != nil {
			t.Fatal(err)
		}
		if _, done, err := d.receive(proof); done || !errors.Is(err, ErrSecret) {
			t.Errorf("its own proof: done %v, %v", done, err)
		}
	})
	t.Run("reflected to a node that is dialled by itself", func(t *testing.T) {
		// Both hellos are the same but for the role.
		d, a := sides()
		d.self, a.Self, d.node = nodeOne, nodeOne, 1
		first, _, _ := a.Receive(d.greet())
		proof, _, err := d.receive(first)
		if err != nil {
			t.Fatal(err)
		}
		if _, done, err := d.receive(proof); done || !errors.Is(err, ErrSecret) {
			t.Errorf("its own proof: done %v, %v", done, err)
		}
	})
	t.Run("replayed", func(t *testing.T) {
		d, a := sides()
		one := d.greet()
		two, _, _ := a.Receive(one)
		three, _, _ := d.receive(two)
		four, done, err := a.Receive(three)
		if !done || err != nil {
			t.Fatal(err)
		}
		// To another acceptor of the same node.
		_, b := sides()
		b.Receive(one)
		if _, done, err := b.Receive(three); done || !errors.Is(err, ErrSecret) {
			t.Errorf("to an acceptor: done %v, %v", done, err)
		}
		// To another dialler.
		e, _ := sides()
		e.greet()
		e.receive(two)
		if _, done, err := e.receive(four); done || !errors.Is(err, ErrSecret) {
			t.Errorf("to a dialler: done %v, %v", done, err)
		}
	})
	t.Run("of a changed hello", func(t *testing.T) {
		d, a := sides()
		greeting := d.greet()
		changed := bytes.Replace(greeting, []byte("two"), []byte("too"), 1)
		reply, _, err := a.Receive(changed)
		if err != nil {
			t.Fatal(err)
		}
		proof, _, err := d.receive(reply)
		if err != nil {
			t.Fatal(err)
		}
		if _, done, err := a.Receive(proof); done || !errors.Is(err, ErrSecret) {
			t.Errorf("done %v, %v", done, err)
		}
	})
	t.Run("empty", func(t *testing.T) {
		d, a := sides()
		a.Receive(d.greet())
		for _, mac := range [][]byte{nil, make([]byte, 32)} {
			if _, done, err := a.Receive(proof(mac)); done || !errors.Is(err, ErrSecret) {
				t.Errorf("done %v, %v", done, err)
			}
		}
	})
}

func TestRefusalIsBounded(t *testing.T) {
	long := strings.Repeat("x", 5000)
	if n := len(refusal(errors.New(long))); n > MaxHandshakeBytes {
		t.Errorf("a refusal of %d bytes", n)
	}
	h := hello{Identity: Identity{long[:maxIDBytes], 1, long[:maxIDBytes]}}
	if n := len(h.append(nil)); n > MaxHandshakeBytes {
		t.Errorf("a hello of %d bytes", n)
	}
}

// No bytes make either side believe, without the secret.
func FuzzHandshake(f *testing.F) {
	f.Fuzz(func(t *testing.T, one, two []byte) {
		_, a := sides()
		d, _ := sides()
		d.greet()
		for _, frame := range [][]byte{one, two} {
			reply, done, err := a.Receive(frame)
			if done {
				t.Fatalf("the acceptor believes %x", frame)
			}
			if len(reply) > MaxHandshakeBytes {
				t.Fatalf("%d bytes in reply", len(reply))
			}
			if err != nil {
				break
			}
		}
		for _, frame := range [][]byte{one, two} {
			if _, done, err := d.receive(frame); done {
				t.Fatalf("the dialler believes %x", frame)
			} else if err != nil {
				break
			}
		}
	})
}
