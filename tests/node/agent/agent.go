package main

import (
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"
)

// sidecar is the agent's only way to tokens: it has no credential of its own.
type sidecar struct {
	url  string
	http *http.Client
}

// ask sends a form, or without one a question.
func (s *sidecar) ask(path string, form url.Values) (answer, error) {
	method, body := "GET", ""
	if form != nil {
		method, body = "POST", form.Encode()
	}
	request, err := http.NewRequest(method, s.url+path, strings.NewReader(body))
	if err != nil {
		return answer{}, err
	}
	request.Header.Set("Countersign-Sidecar", "true")
	if form != nil {
		request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	} else {
		request.Header.Set("Cache-Control", "no-cache") // a token that is issued now, or the refusal
	}
	return roundTrip(s.http, request)
}

// serveAgent is an agent: it obtains tokens, calls other agents and resource
// servers with them, is called itself, and asks for approval.
func serveAgent(routes *http.ServeMux) {
	sidecar := &sidecar{os.Getenv("COUNTERSIGN_SIDECAR_URL"), &http.Client{Timeout: 100 * time.Second}}
	token := func(r *http.Request) (answer, error) {
		return sidecar.ask("/token?"+url.Values{"audience": {r.FormValue("audience")}}.Encode(), nil)
	}

	// A token for an audience: its claims.
	routes.HandleFunc("POST /token", func(w http.ResponseWriter, r *http.Request) {
		said, err := token(r)
		reply(w, said, err)
	})
	// A token for whoever is called, and the call with it. `to` is the address.
	routes.HandleFunc("POST /call", func(w http.ResponseWriter, r *http.Request) {
		said, err := token(r)
		callWith(w, r, said, err)
	})
	// Called by another agent: the token that came is exchanged for one for `audience`, and a resource server is called with that.
	routes.HandleFunc("POST /work", func(w http.ResponseWriter, r *http.Request) {
		said, err := sidecar.ask("/token", url.Values{
			"subject_token": {bearer(r)},
			"audience":      {r.FormValue("audience")},
		})
		callWith(w, r, said, err)
	})
	// Asks a person, waits for the answer, and acts: calls `to` with the token.
	routes.HandleFunc("POST /act", func(w http.ResponseWriter, r *http.Request) {
		said, err := sidecar.ask("/jit", url.Values{"authorization_details": {r.FormValue("authorization_details")}})
		if id, _ := said.Body["auth_req_id"].(string); err == nil && id != "" {
			for {
				said, err = sidecar.ask(fmt.Sprintf("/jit/%s?wait=60", url.PathEscape(id)), nil)
				if err != nil || (said.Status != 503 && said.Body["error"] != "authorization_pending") {
					break
				}
			}
		}
		callWith(w, r, said, err)
	})
	// The files that the program can read of those that a credential would be in.
	routes.HandleFunc("POST /credentials", func(w http.ResponseWriter, _ *http.Request) {
		found, _ := os.ReadDir("/var/run/secrets")
		reply(w, answer{200, map[string]any{"found": len(found)}}, nil)
	})
}

// callWith calls the server that the request names with the token that was answered, if one was.
func callWith(w http.ResponseWriter, r *http.Request, said answer, err error) {
	if err == nil && said.token() != "" {
		said, err = present("POST", r.FormValue("to"), said.token())
	}
	reply(w, said, err)
}

func bearer(r *http.Request) string {
	return strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
}
