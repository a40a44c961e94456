package main

import (
	"fmt"
	"syscall"
	"time"

	"github.com/quirelog/quire/conformance/peer"
)

// usage is how much processor time was used over some time, by whom.
type usage struct {
	time   time.Duration
	server time.Duration
	own    time.Duration // of this process: the tap, and members of Go's and C's libraries
	java   time.Duration // of the processes of Java's members
}

// clientUsage is what has been used since the start of this process and of its JVMs.
func (p *plan) clientUsage() usage {
	u := usage{time: time.Since(p.rec.start)}
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err == nil {
		u.own = time.Duration(r.Utime.Nano() + r.Stime.Nano())
	}
	for _, j := range p.jvms {
		if used, err := peer.UsageOf(j.cmd.Process.Pid); err == nil {
			u.java += used.CPU
		}
	}
	return u
}

func (u usage) plus(v usage) usage {
	return usage{u.time + v.time, u.server + v.server, u.own + v.own, u.java + v.java}
}

func (u usage) minus(v usage) usage {
	return usage{u.time - v.time, u.server - v.server, u.own - v.own, u.java - v.java}
}

// String gives shares in processors.
func (u usage) String() string {
	share := func(d time.Duration) float64 { return d.Seconds() / u.time.Seconds() }
	return fmt.Sprintf("the server %.2f, clients in Go and C and the tap %.2f, clients in Java %.2f", share(u.server), share(u.own), share(u.java))
}
