package main

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestAnswers(t *testing.T) {
	for _, want := range []struct {
		method, path string
		status       int
		contentType  string
		body         string
	}{
		{"GET", "/", 200, "text/plain; charset=utf-8", greeting + "\n"},
		{"GET", "/health", 200, "application/json", `{"status":"ok"}` + "\n"},
		{"GET", "/version", 200, "application/json", `{"version":"2026.131.90512+3f2c1ab","commit":"3f2c1ab"}` + "\n"},
		{"GET", "/nothing", 404, "text/plain; charset=utf-8", "404 page not found\n"},
		{"POST", "/", 405, "text/plain; charset=utf-8", "method not allowed\n"},
		{"DELETE", "/version", 405, "text/plain; charset=utf-8", "method not allowed\n"},
	} {
		t.Run(want.method+" "+want.path, func(t *testing.T) {
			answer := httptest.NewRecorder()
			routes("2026.131.90512+3f2c1ab").ServeHTTP(answer, httptest.NewRequest(want.method, want.path, nil))
			if answer.Code != want.status {
				t.Errorf("status %d, want %d", answer.Code, want.status)
			}
			if got := answer.Header().Get("Content-Type"); got != want.contentType {
				t.Errorf("content type %q, want %q", got, want.contentType)
			}
			if got := answer.Body.String(); got != want.body {
				t.Errorf("body %q, want %q", got, want.body)
			}
		})
	}
}

func TestVersionWithoutBuildMetadataHasNoCommit(t *testing.T) {
	answer := httptest.NewRecorder()
	routes("2026.131.90512").ServeHTTP(answer, httptest.NewRequest("GET", "/version", nil))
	if got, want := answer.Body.String(), `{"version":"2026.131.90512"}`+"\n"; got != want {
		t.Errorf("body %q, want %q", got, want)
	}
}

func TestIdleConnectionsOutliveTheBalancers(t *testing.T) {
	const balancerIdleTimeout = 60 * time.Second
	if idleTimeout <= balancerIdleTimeout {
		t.Errorf("idle connections are closed after %s, the balancer's after %s", idleTimeout, balancerIdleTimeout)
	}
}

// The request that is under way when the service is told to stop gets its whole answer; one that comes later is refused.
func TestStopFinishesRequestsUnderWay(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := listener.Addr().String()
	arrived, finish := make(chan struct{}), make(chan struct{})
	slow := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		close(arrived)
		<-finish
		io.WriteString(w, "whole answer")
	})

	ctx, stop := context.WithCancel(context.Background())
	stopped := make(chan error, 1)
	go func() { stopped <- serve(ctx, listener, slow) }()

	type result struct {
		body string
		err  error
	}
	answered := make(chan result, 1)
	go func() {
		response, err := http.Get("http://" + address)
		if err != nil {
			answered <- result{err: err}
			return
		}
		defer response.Body.Close()
		body, err := io.ReadAll(response.Body)
		answered <- result{string(body), err}
	}()

	<-arrived
	stop()
	waitUntilRefused(t, address)
	select {
	case err := <-stopped:
		t.Fatalf("stopped with a request under way: %v", err)
	default:
	}
	close(finish)

	if got := <-answered; got.err != nil || got.body != "whole answer" {
		t.Errorf("the request under way got %q, %v", got.body, got.err)
	}
	if err := <-stopped; err != nil {
		t.Errorf("serve: %v", err)
	}
}

func TestServeReportsAListenerThatFails(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	listener.Close()
	err = serve(context.Background(), listener, http.NotFoundHandler())
	if err == nil || !strings.HasPrefix(err.Error(), "serve: ") {
		t.Errorf("got %v", err)
	}
}

// waitUntilRefused returns once nothing accepts connections at address any more.
func waitUntilRefused(t *testing.T, address string) {
	t.Helper()
	for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		connection, err := net.Dial("tcp", address)
		if errors.Is(err, syscall.ECONNREFUSED) {
			return
		}
		if err == nil {
			connection.Close()
		}
	}
	t.Fatalf("%s still accepts connections", address)
}
