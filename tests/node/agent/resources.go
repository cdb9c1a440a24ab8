package main

import (
	"net/http"
	"sync"
)

// serveResources is a resource server: it asks the token service about each
// token it is shown, and completes an approved operation before it acts.
func serveResources(routes *http.ServeMux) {
	service := tokenService()
	var lock sync.Mutex
	last := ""

	// Somebody comes with a token, which is kept, to be asked about later.
	routes.HandleFunc("POST /read", func(w http.ResponseWriter, r *http.Request) {
		lock.Lock()
		last = bearer(r)
		lock.Unlock()
		said, err := service.asServer("/oauth2/introspect", bearer(r))
		reply(w, said, err)
	})
	// The same with the token of an approved operation: it is used up, and then the server acts.
	routes.HandleFunc("POST /pay", func(w http.ResponseWriter, r *http.Request) {
		said, err := service.asServer("/oauth2/introspect", bearer(r))
		if err == nil && said.Body["active"] == true {
			var completed answer
			completed, err = service.asServer("/jit/complete", bearer(r))
			said.Body["completed"] = completed.Status
		}
		reply(w, said, err)
	})
	// What the token service says now of the token that came last.
	routes.HandleFunc("POST /again", func(w http.ResponseWriter, _ *http.Request) {
		lock.Lock()
		token := last
		lock.Unlock()
		said, err := service.asServer("/oauth2/introspect", token)
		reply(w, said, err)
	})
}
