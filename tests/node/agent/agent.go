package main

import (
	"net/http"
	"net/url"
	"strings"
)

// serveAgent is an agent: it obtains tokens, calls other agents and resource
// servers with them, is called itself, and asks for approval.
func serveAgent(routes *http.ServeMux) {
	service := tokenService()
	load := &load{}

	// A token for an audience: its claims.
	routes.HandleFunc("POST /token", func(w http.ResponseWriter, r *http.Request) {
		said, err := clientCredentials(service, r)
		reply(w, said, err)
	})
	// A token for whoever is called, and the call with it. `to` is the address.
	routes.HandleFunc("POST /call", func(w http.ResponseWriter, r *http.Request) {
		said, err := clientCredentials(service, r)
		if err == nil && said.token() != "" {
			said, err = present("POST", r.FormValue("to"), said.token())
		}
		reply(w, said, err)
	})
	// Called by another agent: the token that came is exchanged for one for `audience`, and a resource server is called with that.
	routes.HandleFunc("POST /work", func(w http.ResponseWriter, r *http.Request) {
		said, err := service.asAgent("/oauth2/token", url.Values{
			"grant_type":         {exchangeGrant},
			"subject_token_type": {accessToken},
			"subject_token":      {bearer(r)},
			"audience":           {r.FormValue("audience")},
		})
		if err == nil && said.token() != "" {
			said, err = present("POST", r.FormValue("to"), said.token())
		}
		reply(w, said, err)
	})
	// Asks a person, waits for the answer, and acts: calls `to` with the token.
	routes.HandleFunc("POST /act", func(w http.ResponseWriter, r *http.Request) {
		said, err := service.asAgent("/oauth2/bc-authorize", url.Values{
			"login_hint":            {r.FormValue("login_hint")},
			"authorization_details": {r.FormValue("authorization_details")},
		})
		if id, _ := said.Body["auth_req_id"].(string); err == nil && id != "" {
			said, err = waitForDecision(service, id)
		}
		if err == nil && said.token() != "" {
			said, err = present("POST", r.FormValue("to"), said.token())
		}
		reply(w, said, err)
	})
	routes.HandleFunc("POST /load", func(w http.ResponseWriter, r *http.Request) {
		reply(w, answer{Status: 200}, load.start(r.FormValue("audience")))
	})
	routes.HandleFunc("DELETE /load", func(w http.ResponseWriter, _ *http.Request) {
		reply(w, answer{200, load.stop()}, nil)
	})
}

func clientCredentials(service *service, r *http.Request) (answer, error) {
	form := url.Values{"grant_type": {"client_credentials"}}
	for _, name := range []string{"audience", "scope"} {
		if value := r.FormValue(name); value != "" {
			form.Set(name, value)
		}
	}
	return service.asAgent("/oauth2/token", form)
}

// waitForDecision polls: each poll is held open until somebody decides, for 25 seconds at most.
func waitForDecision(service *service, id string) (answer, error) {
	for {
		said, err := service.asAgent("/oauth2/token", url.Values{"grant_type": {approvalGrant}, "auth_req_id": {id}})
		if err != nil || (said.Body["error"] != "authorization_pending" && said.Body["error"] != "slow_down") {
			return said, err
		}
	}
}

func bearer(r *http.Request) string {
	return strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
}
