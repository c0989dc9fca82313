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
	// URL is an HTTP service, which gets one POST for each item, or an AMQP 0.9.1 broker
	// with its virtual host. https or amqps; http or amqp to this machine.
	URL string `yaml:"url"`
	// Exchange and RoutingKey say where a broker puts items. An empty exchange is the
	// broker's default one, whose routing key is a queue's name.
	Exchange   string `yaml:"exchange,omitempty"`
	RoutingKey string `yaml:"routing_key,omitempty"`
	// CredentialsFile holds a broker's "user:password", on one line. It is read anew for
	// each connection. Empty: guest.
	CredentialsFile string `yaml:"credentials_file,omitempty"`
	// HeadersFile holds further headers of an HTTP service, one a line, as
	// "Authorization: Bearer ...". It is read anew for each item. Empty: none.
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
		p.checkURL(v, key)
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

// Broker reports whether the system is an AMQP broker.
func (p Push) Broker() bool {
	u, err := url.Parse(p.URL)
	return err == nil && (u.Scheme == "amqp" || u.Scheme == "amqps")
}

// maxShortString is how long an AMQP name may be, in bytes.
const maxShortString = 255

func (p Push) checkURL(v *checker, key string) {
	u, err := url.Parse(p.URL)
	switch {
	case err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" && !p.Broker():
		v.add(key+".url", "no http, https, amqp or amqps URL", "write it as https://host/path, or amqps://host/virtual-host")
	case (u.Scheme == "http" || u.Scheme == "amqp") && !isLoopback(u.Hostname()):
		v.add(key+".url", "personal data would travel here without TLS", "want https or amqps (http and amqp only to this machine: localhost, 127.0.0.1, [::1])")
	}
	switch {
	case p.Broker() && p.HeadersFile != "":
		v.add(key+".headers_file", "a broker has no headers", "write user:password into credentials_file")
	case p.Broker() && p.RoutingKey == "":
		v.add(key+".routing_key", "missing", "name the queue, or what the exchange routes by")
	case len(p.RoutingKey) > maxShortString || len(p.Exchange) > maxShortString:
		v.add(key+".routing_key", "too long, or the exchange is", "AMQP names have at most 255 bytes")
	case !p.Broker() && (p.Exchange != "" || p.RoutingKey != "" || p.CredentialsFile != ""):
		v.add(key+".url", "no broker", "exchange, routing_key and credentials_file are for amqps URLs")
	}
}
