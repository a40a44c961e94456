package main

import (
	"os"
	"runtime"
)

// cores is what the machine, or the container, lets this process use.
var cores = runtime.GOMAXPROCS(0)

// spareProcessors is how many more processors Go's scheduler gets than there
// are cores. The journal and the writers behind it sit in system calls that take
// as long as the disk does. With none to spare the scheduler takes the caller's
// away after 20 µs and wakes threads to look for work that is not there: with two
// cores and one busy partition the thread that watches for it took a quarter of
// the server's processor time.
const spareProcessors = 2

// addProcessors gives Go's scheduler its spare processors. GOMAXPROCS wins.
func addProcessors() {
	if os.Getenv("GOMAXPROCS") == "" {
		runtime.GOMAXPROCS(cores + spareProcessors)
	}
}
