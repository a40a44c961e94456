package group

import (
	"errors"
	"testing"
	"time"
)

// FuzzLoad: any bytes give a group or an error. A group lives: it takes the
// events of a member and of time, and what it writes can be loaded again.
func FuzzLoad(f *testing.F) {
	config := Config{MaxSize: 3, NewUUID: func() string { return "u" }}.WithDefaults()
	now := time.Unix(1_000_000, 0)
	f.Fuzz(func(t *testing.T, record []byte) {
		g, err := Load("g", &config, record, now)
		if err != nil {
			if !errors.Is(err, ErrCorruptRecord) {
				t.Fatalf("an error of another kind: %v", err)
			}
			return
		}
		again, err := Load("g", &config, g.appendRecord(nil), now)
		if err != nil {
			t.Fatalf("written again it is corrupt: %v", err)
		}
		if g.Type() != Classic {
			return
		}
		if g.ProtocolType() != again.ProtocolType() || describeState(g) != describeState(again) {
			t.Fatalf("written again %s is %s", describeState(g), describeState(again))
		}
		g.SubscribedTo("t")
		g.Expiry()
		if _, err := g.Describe(); err != nil {
			t.Fatal(err)
		}
		var e Effects
		g.JoinGroup(now, 1, &JoinGroupRequest{ClientID: "c", SessionTimeout: time.Minute, ProtocolType: g.ProtocolType(), Protocols: []Protocol{{Name: "range"}}}, &e)
		for range 20 {
			if e.Write.Seq != 0 {
				seq := e.Write.Seq
				e.Reset()
				g.Written(now, seq, nil, &e)
			} else if d, ok := g.Deadline(); ok {
				e.Reset()
				g.Tick(d, &e)
			}
		}
	})
}

// TestLoadRefuses names what a group's own rules would not have made.
func TestLoadRefuses(t *testing.T) {
	config := Config{}.WithDefaults()
	build := func(change func(c *classic, m, other *member)) []byte {
		g := New("g", &config)
		c := g.classic
		c.generation, c.protocolType, c.protocolName, c.state = 1, "consumer", "range", Stable
		members := []*member{{id: "a", instance: "i"}, {id: "b"}}
		for _, m := range members {
			m.session, m.protocols = time.Second, []Protocol{{"range", []byte("x")}}
			c.add(m)
		}
		change(c, members[0], members[1])
		return g.appendRecord(nil)
	}
	if _, err := Load("g", &config, build(func(*classic, *member, *member) {}), time.Unix(0, 0)); err != nil {
		t.Fatalf("a sound record: %v", err)
	}
	for name, change := range map[string]func(c *classic, m, other *member){
		"negative generation":  func(c *classic, m, other *member) { c.generation = -1 },
		"member without id":    func(c *classic, m, other *member) { other.id = "" },
		"two of one id":        func(c *classic, m, other *member) { other.id = m.id },
		"two of one instance":  func(c *classic, m, other *member) { other.instance = m.instance },
		"no session":           func(c *classic, m, other *member) { m.session = 0 },
		"no protocol type":     func(c *classic, m, other *member) { c.protocolType = "" },
		"another protocol":     func(c *classic, m, other *member) { c.protocolName = "sticky" },
		"no common protocol":   func(c *classic, m, other *member) { m.protocols = []Protocol{{"sticky", nil}} },
		"protocol named twice": func(c *classic, m, other *member) { m.protocols = append(m.protocols, m.protocols[0]) },
		"protocol of nobody":   func(c *classic, m, other *member) { c.members = nil },
	} {
		record := build(change)
		if name == "protocol of nobody" { // appendRecord does not write such a one
			record = append([]byte{recordVersion, recordClassic, 2, 0, 1, 'p', 0, 0, 0}, 0, 0)
		}
		if _, err := Load("g", &config, record, time.Unix(0, 0)); !errors.Is(err, ErrCorruptRecord) {
			t.Errorf("%s: %v", name, err)
		}
	}
	sound := build(func(*classic, *member, *member) {})
	for n := range sound {
		if _, err := Load("g", &config, sound[:n], time.Unix(0, 0)); !errors.Is(err, ErrCorruptRecord) {
			t.Errorf("cut to %d bytes: %v", n, err)
		}
	}
	for name, record := range map[string][]byte{
		"longer":          append(sound[:len(sound):len(sound)], 0),
		"another version": append([]byte{recordVersion + 1}, sound[1:]...),
		"another type":    append([]byte{recordVersion, 9}, sound[2:]...),
	} {
		if _, err := Load("g", &config, record, time.Unix(0, 0)); !errors.Is(err, ErrCorruptRecord) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
