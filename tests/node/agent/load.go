package main

import (
	"errors"
	"io"
	"net/http"
	"net/url"
	"os"
	"sync"
	"syscall"
	"time"
)

const (
	clients = 8
	pace    = 150 * time.Millisecond // of each, between two requests
	pause   = 2 * time.Second        // before the one retry that a client makes: longer than a Service leads to a dead pod
)

// serveClients is an agent without a sidecar, which asks the token service as fast as it is told to.
func serveClients(routes *http.ServeMux) {
	load := &load{}
	routes.HandleFunc("POST /load", func(w http.ResponseWriter, r *http.Request) {
		reply(w, answer{Status: 200}, load.start(r.FormValue("audience")))
	})
	routes.HandleFunc("DELETE /load", func(w http.ResponseWriter, _ *http.Request) {
		reply(w, answer{200, load.stop()}, nil)
	})
}

// load is clients of the token service, which ask for a token again and again.
type load struct {
	lock    sync.Mutex
	stopped chan struct{}
	done    sync.WaitGroup
	counted
}

// counted is what became of the requests.
type counted struct {
	requests    int       // each with its retry
	retried     int       // of these, those that did not succeed at first
	failed      int       // and those that did not succeed at last
	first, last time.Time // when the first attempt failed, and the last
	complaints  map[string]int
}

func (l *load) start(audience string) error {
	authority, err := os.ReadFile(os.Getenv("COUNTERSIGN_CA"))
	if err != nil {
		return err
	}
	l.lock.Lock()
	defer l.lock.Unlock()
	if l.stopped != nil {
		return errors.New("there is a load already")
	}
	l.stopped, l.counted = make(chan struct{}), counted{complaints: map[string]int{}}
	service := newService(authority, 5*time.Second)
	for range clients {
		l.done.Add(1)
		go l.client(service, audience, l.stopped)
	}
	return nil
}

// stop ends it and says what became of it.
func (l *load) stop() map[string]any {
	l.lock.Lock()
	stopped := l.stopped
	l.stopped = nil
	l.lock.Unlock()
	if stopped == nil {
		return map[string]any{"requests": 0}
	}
	close(stopped)
	l.done.Wait()
	return map[string]any{
		"requests":   l.requests,
		"retried":    l.retried,
		"failed":     l.failed,
		"window_ms":  l.last.Sub(l.first).Milliseconds(),
		"complaints": l.complaints,
	}
}

func (l *load) client(service *service, audience string, stopped chan struct{}) {
	defer l.done.Done()
	for {
		select {
		case <-stopped:
			return
		case <-time.After(pace):
		}
		first := l.attempt(service, audience)
		second := first
		if !first {
			time.Sleep(pause)
			second = l.attempt(service, audience)
		}
		l.lock.Lock()
		l.requests++
		if !first {
			l.retried++
		}
		if !second {
			l.failed++
		}
		l.lock.Unlock()
	}
}

// attempt is one request on a connection of its own; whether it was answered with a token.
func (l *load) attempt(service *service, audience string) bool {
	began := time.Now()
	said, err := service.asAgent("/oauth2/token", url.Values{
		"grant_type": {"client_credentials"},
		"audience":   {audience},
	})
	if err == nil && said.token() != "" {
		return true
	}
	complaint, _ := said.Body["error"].(string)
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		complaint = "connection refused"
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, io.EOF):
		complaint = "connection closed"
	case os.IsTimeout(err):
		complaint = "no answer in time"
	case err != nil:
		complaint = err.Error()
	}
	l.lock.Lock()
	defer l.lock.Unlock()
	if l.first.IsZero() {
		l.first = began
	}
	l.last = time.Now()
	l.complaints[complaint]++
	return false
}
