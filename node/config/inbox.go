package config

import (
	"fmt"
	"net/url"
	"time"

	"github.com/crossroads-mesh/crossroads/registry/names"
)

// Inbox says to which systems what arrives is sent. Applications that fetch it themselves
// have inbox: true instead.
type Inbox struct {
	Push []Push `yaml:"push,omitempty"`
}

// Push is a system of the institution's that is sent every item of its purposes and
// datasets; package adapters/push says how. Items wait for it until it has accepted them.
type Push struct {
	// Name stands in the journal, as an application's does, and is no application's.
	Name string `yaml:"name"`
	// URL gets one POST for each item. https, or http to this machine.
	URL string `yaml:"url"`
	// HeadersFile holds further headers, one a line, as "Authorization: Bearer ...". It is
	// read anew for each item. Empty: none.
	HeadersFile string `yaml:"headers_file,omitempty"`
	// CAFile holds the certificates (PEM) that the system's may come from. Empty: those
	// that this machine trusts.
	CAFile string `yaml:"ca_file,omitempty"`
	// Timeout is how long one POST may take. 0: the adapter's default.
	Timeout time.Duration `yaml:"timeout,omitempty"`
	// AtOnce is how many are under way beside each other, never two about one subject.
	// 0: the default.
	AtOnce int `yaml:"at_once,omitempty"`
	// Kinds, Purposes and Datasets are what it is sent. Empty: all.
	Kinds    []string          `yaml:"kinds,omitempty"`
	Purposes []names.Purpose   `yaml:"purposes,omitempty"`
	Datasets []names.DatasetID `yaml:"datasets,omitempty"`
}

func (b Inbox) check(v *checker, applications []Application) {
	called := map[string]bool{}
	for _, a := range applications {
		called[a.Name] = true
	}
	for i, p := range b.Push {
		key := fmt.Sprintf("inbox.push[%d]", i)
		v.name(key+".name", names.NodeName(p.Name).Validate(), "use lower case letters, digits and dashes")
		if called[p.Name] {
			v.add(key+".name", "used twice", "give every application and every push its own name")
		}
		called[p.Name] = true
		u, err := url.Parse(p.URL)
		switch {
		case err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https":
			v.add(key+".url", "not an http or https URL", "write it as https://host/path")
		case u.Scheme == "http" && !isLoopback(u.Hostname()):
			v.add(key+".url", "personal data would travel here without TLS", "want https (http only to this machine: localhost, 127.0.0.1, [::1])")
		}
		within(v, key+".timeout", p.Timeout, 0, 5*time.Minute)
		within(v, key+".at_once", p.AtOnce, 0, 64)
		for j, k := range p.Kinds {
			v.oneOf(fmt.Sprintf("%s.kinds[%d]", key, j), k, "notification", "declaration", "result")
		}
		for j, x := range p.Purposes {
			v.name(fmt.Sprintf("%s.purposes[%d]", key, j), x.Validate(), "use a purpose as an authorization names it")
		}
		for j, x := range p.Datasets {
			v.name(fmt.Sprintf("%s.datasets[%d]", key, j), x.Validate(), "use a dataset as the registry names it")
		}
	}
}
