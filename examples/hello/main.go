// Command hello is a small web service, deployed by the alcedo.yaml beside it.
//
// It answers a greeting at /, its health at /health and its version at /version. On SIGTERM it stops accepting
// connections, finishes the requests it has, and ends.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

const greeting = "Hello from Alcedo."

const (
	// An application load balancer keeps idle connections to a server for 60 s and may send a request in the last
	// moment of them. A server that closes first makes the balancer answer that request with 502.
	idleTimeout = 75 * time.Second
	// A client that never finishes its request line and headers must not hold a connection.
	readHeaderTimeout = 10 * time.Second
	// How long requests under way may take once the service was told to stop. Below TimeoutStopSec of
	// deploy/hello.service, after which systemd kills it.
	shutdownTimeout = 25 * time.Second
)

func main() {
	listen := flag.String("listen", ":8080", "address and port to listen on")
	flag.Parse()
	log.SetFlags(0) // The journal stamps every line with its time.

	version := os.Getenv("HELLO_VERSION")
	if version == "" {
		version = "unreleased"
	}
	listener, err := net.Listen("tcp", *listen)
	if err != nil {
		log.Fatal(err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()

	log.Printf("hello %s listens on %s", version, listener.Addr())
	if err := serve(ctx, listener, routes(version)); err != nil {
		log.Fatal(err)
	}
	log.Print("stopped; every request was answered")
}

// serve answers requests until ctx ends, then finishes those under way. It returns nil after a complete, orderly stop.
func serve(ctx context.Context, listener net.Listener, handler http.Handler) error {
	server := &http.Server{Handler: handler, IdleTimeout: idleTimeout, ReadHeaderTimeout: readHeaderTimeout}

	failed := make(chan error, 1)
	go func() { failed <- server.Serve(listener) }()

	select {
	case err := <-failed:
		return fmt.Errorf("serve: %w", err)
	case <-ctx.Done():
	}
	deadline, cancel := context.WithTimeout(context.Background(), shutdownTimeout)
	defer cancel()
	if err := server.Shutdown(deadline); err != nil {
		return fmt.Errorf("stop: %w", err)
	}
	if err := <-failed; !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve: %w", err)
	}
	return nil
}

// routes is everything the service answers.
func routes(version string) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/" {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		fmt.Fprintln(w, greeting)
	})
	mux.HandleFunc("/health", func(w http.ResponseWriter, r *http.Request) {
		writeJSON(w, health{Status: "ok"})
	})
	mux.HandleFunc("/version", func(w http.ResponseWriter, r *http.Request) {
		writeJSON(w, describe(version))
	})
	return readOnly(mux)
}

type health struct {
	Status string `json:"status"`
}

type release struct {
	Version string `json:"version"`
	Commit  string `json:"commit,omitempty"`
}

// describe takes a version apart: SemVer's build metadata, after the plus sign, is the commit.
func describe(version string) release {
	_, commit, _ := strings.Cut(version, "+")
	return release{Version: version, Commit: commit}
}

// readOnly refuses methods that would change something, since nothing here can be changed.
func readOnly(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			w.Header().Set("Allow", "GET, HEAD")
			http.Error(w, "method not allowed", http.StatusMethodNotAllowed)
			return
		}
		next.ServeHTTP(w, r)
	})
}

func writeJSON(w http.ResponseWriter, body any) {
	w.Header().Set("Content-Type", "application/json")
	// A failed write means that the client has gone; there is nobody to tell.
	_ = json.NewEncoder(w).Encode(body)
}
