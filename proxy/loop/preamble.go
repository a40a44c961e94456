package loop

import (
	"errors"
	"io"
	"net"
)

// Errors that Preamble.Failed may report, beside those of Closed.
var (
	ErrPreambleTimeout = errors.New("the beginning of the connection did not come in time")
	errRefused         = errors.New("refused")
)

// Preamble takes what a connection begins with and is not for its handler: a
// PROXY protocol header. It comes before TLS, and before there is a handler. All of
// its methods are called on the connection's loop; either Open or Failed is
// called, once and last.
type Preamble interface {
	// Space returns where the next bytes are to be put. It asks for no byte
	// that may belong to what follows the preamble, and is never empty.
	Space() []byte

	// Filled reports that n > 0 bytes were put into what Space returned. An
	// error closes the connection; once the preamble is whole Open follows.
	Filled(n int) (whole bool, err error)

	// RemoteAddr is what Sock.RemoteAddr says from Open on.
	RemoteAddr() net.Addr

	// Open is Accept.Open; nil refuses the connection.
	Open(Sock) Handler

	// Failed reports that the connection is closed and was never opened.
	Failed(err error)
}

// opening is the handler of a connection until its preamble is whole.
type opening struct {
	sock     Sock
	preamble Preamble
	timer    Timer
	opened   func(h Handler, remote net.Addr) // replaces this handler
}

// open returns the first handler of a connection: its own, or an opening.
func (a *Accept) open(sock Sock, cfg *Config, opened func(Handler, net.Addr)) Handler {
	if a.Preamble == nil {
		return a.Open(sock)
	}
	o := &opening{sock: sock, preamble: a.Preamble(sock.RemoteAddr()), opened: opened}
	o.timer = sock.Loop().After(cfg.PreambleTimeout, func() { sock.Close(ErrPreambleTimeout) })
	return o
}

func (o *opening) Space() []byte { return o.preamble.Space() }

func (o *opening) Filled(n int) {
	whole, err := o.preamble.Filled(n)
	switch {
	case err != nil:
		o.sock.Close(err)
	case whole:
		o.timer.Stop()
		o.opened(refused{}, o.preamble.RemoteAddr())
		if h := o.preamble.Open(o.sock); h != nil {
			o.opened(h, o.preamble.RemoteAddr())
		} else {
			o.sock.Close(errRefused)
		}
	}
}

func (o *opening) EOF()        { o.sock.Close(io.ErrUnexpectedEOF) }
func (o *opening) Written(int) {}

func (o *opening) Closed(err error) {
	o.timer.Stop()
	o.preamble.Failed(err)
}

// refused is the handler of a connection that is about to be closed.
type refused struct{}

func (refused) Space() []byte { return nil }
func (refused) Filled(int)    {}
func (refused) EOF()          {}
func (refused) Written(int)   {}
func (refused) Closed(error)  {}
