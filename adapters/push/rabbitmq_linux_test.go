package push_test

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// rabbit is a RabbitMQ of Debian's on the loopback interface, with everything of its own
// in one folder.
type rabbit struct {
	t      *testing.T
	dir    string
	url    string
	env    []string
	names  *exec.Cmd // epmd, by which Erlang's nodes find each other
	server *exec.Cmd
}

func newRabbit(t *testing.T) *rabbit {
	t.Helper()
	found, _ := filepath.Glob("/usr/lib/rabbitmq/lib/rabbitmq_server-*/sbin/rabbitmq-server")
	epmd, err := exec.LookPath("epmd")
	if len(found) == 0 || err != nil {
		t.Skip("SKIPPED: RabbitMQ absent, install rabbitmq-server")
	}
	slices.Sort(found)
	r := &rabbit{t: t, dir: t.TempDir()}
	ports := freePorts(t, 3)
	r.url = "amqp://127.0.0.1:" + ports[0] + "/"
	r.env = append(os.Environ(), "HOME="+r.dir, "ERL_EPMD_PORT="+ports[1], "ERL_EPMD_ADDRESS=127.0.0.1",
		"RABBITMQ_NODENAME=crossroads@localhost", "RABBITMQ_NODE_IP_ADDRESS=127.0.0.1", "RABBITMQ_NODE_PORT="+ports[0], "RABBITMQ_DIST_PORT="+ports[2],
		"RABBITMQ_MNESIA_BASE="+filepath.Join(r.dir, "data"), "RABBITMQ_LOG_BASE="+filepath.Join(r.dir, "log"),
		"RABBITMQ_ENABLED_PLUGINS_FILE="+filepath.Join(r.dir, "plugins"), "RABBITMQ_CONFIG_FILE="+filepath.Join(r.dir, "rabbitmq"),
		"RABBITMQ_PID_FILE="+filepath.Join(r.dir, "pid"), "RABBITMQ_CONF_ENV_FILE=/dev/null")
	r.names = r.command(epmd, "-address", "127.0.0.1", "-port", ports[1])
	if err := r.names.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { end(r.names) })
	r.server = r.command(found[len(found)-1])
	r.start()
	t.Cleanup(func() { r.kill() })
	return r
}

// command runs in a group of its own, so that what it starts ends with it.
func (r *rabbit) command(name string, args ...string) *exec.Cmd {
	c := exec.Command(name, args...)
	c.Dir, c.Env = r.dir, r.env
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	return c
}

func end(c *exec.Cmd) {
	_ = syscall.Kill(-c.Process.Pid, syscall.SIGKILL)
	_ = c.Wait()
}

func (r *rabbit) kill() { end(r.server) }

// start starts the broker, again after kill, and waits until it answers.
func (r *rabbit) start() {
	r.t.Helper()
	r.server = r.command(r.server.Path)
	log, err := os.Create(filepath.Join(r.dir, "out"))
	if err != nil {
		r.t.Fatal(err)
	}
	defer log.Close()
	r.server.Stdout, r.server.Stderr = log, log
	if err := r.server.Start(); err != nil {
		r.t.Fatal(err)
	}
	for until := time.Now().Add(2 * time.Minute); ; time.Sleep(50 * time.Millisecond) {
		conn, err := amqp.Dial(r.url)
		if err == nil {
			_ = conn.Close()
			return
		}
		if time.Now().After(until) {
			text, _ := os.ReadFile(log.Name())
			r.t.Fatalf("rabbitmq-server: %v\n%s", err, text)
		}
	}
}

// with lends a channel of a connection.
func (r *rabbit) with(use func(*amqp.Channel) error) {
	r.t.Helper()
	conn, err := amqp.Dial(r.url)
	if err != nil {
		r.t.Fatal(err)
	}
	defer conn.Close()
	c, err := conn.Channel()
	if err == nil {
		err = use(c)
	}
	if err != nil {
		r.t.Fatal(err)
	}
}

func (r *rabbit) queue(name string) {
	r.t.Helper()
	r.with(func(c *amqp.Channel) error {
		_, err := c.QueueDeclare(name, true, false, false, false, nil)
		return err
	})
}

// take gives all that lies in a queue.
func (r *rabbit) take(queue string) (all []amqp.Delivery) {
	r.t.Helper()
	r.with(func(c *amqp.Channel) error {
		for {
			d, ok, err := c.Get(queue, true)
			if err != nil || !ok {
				return err
			}
			all = append(all, d)
		}
	})
	return all
}

func freePorts(t *testing.T, n int) (ports []string) {
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		ports = append(ports, fmt.Sprint(l.Addr().(*net.TCPAddr).Port))
	}
	return ports
}
