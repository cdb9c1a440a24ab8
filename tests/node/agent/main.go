// Command agent is what runs in the pods of the end-to-end test: an agent or a
// resource server, and nothing but what its argument names.
//
// It does what it is told over HTTP, so that the script of the test says what
// happens and this only how a program does it. No token is in an answer: of a
// token it says the claims.
package main

import (
	"fmt"
	"log"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"
)

const usage = "usage: agent pause|agent|clients|resource-server"

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, usage)
		os.Exit(2)
	}
	routes := http.NewServeMux()
	switch os.Args[1] {
	case "pause":
		// Keeps the namespaces of a pod, for which it has to do nothing.
	case "agent":
		serveAgent(routes)
	case "clients":
		serveClients(routes)
	case "resource-server":
		serveResources(routes)
	default:
		fmt.Fprintln(os.Stderr, usage)
		os.Exit(2)
	}
	if os.Args[1] != "pause" {
		routes.HandleFunc("GET /healthz", func(http.ResponseWriter, *http.Request) {})
		go func() { log.Fatal(http.ListenAndServe(":8080", routes)) }()
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT)
	<-stop
	if os.Args[1] == "agent" {
		// An agent that does not want to go: what can its pod still do, once it is deleted?
		time.Sleep(4 * time.Second)
	}
}
