// Command hello, for tests of flips: beside its health and its version it takes uploads, thinks for as long as it is asked
// to, keeps WebSockets open, and goes sick on demand.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"io"
	"log"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/gorilla/websocket"
)

var sick atomic.Bool

func main() {
	listen := flag.String("listen", ":8080", "address and port to listen on")
	flag.Parse()
	version, _, _ := strings.Cut(os.Getenv("HELLO_VERSION"), "+")

	mux := http.NewServeMux()
	answer := func(w http.ResponseWriter) {
		if sick.Load() {
			http.Error(w, "sick", http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(map[string]string{"version": version})
	}
	mux.HandleFunc("/health", func(w http.ResponseWriter, r *http.Request) { answer(w) })
	mux.HandleFunc("/version", func(w http.ResponseWriter, r *http.Request) { answer(w) })
	mux.HandleFunc("/slow", func(w http.ResponseWriter, r *http.Request) {
		seconds, _ := strconv.ParseFloat(r.URL.Query().Get("seconds"), 64)
		time.Sleep(time.Duration(seconds * float64(time.Second)))
		answer(w)
	})
	mux.HandleFunc("/upload", func(w http.ResponseWriter, r *http.Request) {
		if size, err := io.Copy(io.Discard, r.Body); err != nil || size != r.ContentLength {
			http.Error(w, "the upload is not whole", http.StatusBadRequest)
			return
		}
		answer(w)
	})
	mux.HandleFunc("/sick", func(w http.ResponseWriter, r *http.Request) { sick.Store(true) })
	upgrader := websocket.Upgrader{}
	mux.HandleFunc("/socket", func(w http.ResponseWriter, r *http.Request) {
		socket, err := upgrader.Upgrade(w, r, nil)
		if err != nil {
			return
		}
		defer socket.Close()
		for {
			kind, _, err := socket.ReadMessage()
			if err != nil {
				return
			}
			if err := socket.WriteMessage(kind, []byte(version)); err != nil {
				return
			}
		}
	})

	server := &http.Server{Addr: *listen, Handler: mux, IdleTimeout: 75 * time.Second}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	go func() {
		<-ctx.Done()
		deadline, cancel := context.WithTimeout(context.Background(), 25*time.Second)
		defer cancel()
		_ = server.Shutdown(deadline)
	}()
	if err := server.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		log.Fatal(err)
	}
}
