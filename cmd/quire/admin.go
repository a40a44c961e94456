package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/pprof"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.uber.org/zap"
)

// healthCheck is one thing that must hold. It returns why it does not. remark,
// if it is not nil, says what people should know although it holds, or "".
type healthCheck struct {
	name   string
	check  func(ctx context.Context) error
	remark func() string
}

// adminServer answers operators over HTTP: metrics, health and profiles. It has
// no authentication, hence loopback by default.
type adminServer struct {
	server   *http.Server
	listener net.Listener
	done     chan struct{}
}

// healthTimeout bounds a health check, below the second that probes commonly wait.
const healthTimeout = 900 * time.Millisecond

// newRegistry returns a registry with the metrics of the process itself.
func newRegistry() *prometheus.Registry {
	r := prometheus.NewRegistry()
	r.MustRegister(
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		collectors.NewBuildInfoCollector(),
	)
	return r
}

// startAdmin serves on l until Close. live must hold while the process is any
// good at all, ready while it should get traffic; more adds what else there is.
func startAdmin(l net.Listener, r *prometheus.Registry, live, ready []healthCheck, more func(*http.ServeMux), log *zap.Logger) *adminServer {
	mux := http.NewServeMux()
	more(mux)
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, "/metrics\n/livez\n/readyz\n/nodes\n/debug/pprof/\n")
	})
	mux.Handle("GET /metrics", promhttp.HandlerFor(r, promhttp.HandlerOpts{EnableOpenMetrics: true, MaxRequestsInFlight: 4}))
	mux.Handle("GET /livez", healthHandler(live))
	mux.Handle("GET /readyz", healthHandler(append(live[:len(live):len(live)], ready...)))
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	a := &adminServer{
		server: &http.Server{
			Handler:           mux,
			ReadHeaderTimeout: 5 * time.Second,
			IdleTimeout:       time.Minute,
			MaxHeaderBytes:    16 << 10,
			ErrorLog:          zap.NewStdLog(log),
		},
		listener: l,
		done:     make(chan struct{}),
	}
	go func() {
		defer close(a.done)
		if err := a.server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			log.Error("admin listener ended", zap.Error(err))
		}
	}()
	return a
}

// healthHandler runs the checks in order: 200 and a line for each, or 503 and
// the reason of the first that fails.
func healthHandler(checks []healthCheck) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), healthTimeout)
		defer cancel()
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.Header().Set("Cache-Control", "no-store")
		body := ""
		for _, c := range checks {
			if err := c.check(ctx); err != nil {
				w.WriteHeader(http.StatusServiceUnavailable)
				fmt.Fprintf(w, "%s: %s\n", c.name, oneLine(err.Error()))
				return
			}
			body += c.name + ": ok"
			if c.remark != nil {
				if text := oneLine(c.remark()); text != "" {
					body += ", but " + text
				}
			}
			body += "\n"
		}
		fmt.Fprint(w, body)
	})
}

// Close stops the listener and the requests under way.
func (a *adminServer) Close() error {
	err := a.server.Close()
	<-a.done
	return err
}
