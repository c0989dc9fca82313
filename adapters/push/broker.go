package push

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/crossroads-mesh/crossroads/node/config"
	"github.com/crossroads-mesh/crossroads/node/inbox/push"
)

const (
	maxCredentials = 4 << 10
	heartbeat      = 10 * time.Second
	closeWithin    = time.Second
)

// Broker is the queue of an AMQP broker. It is safe for concurrent use.
type Broker struct {
	cfg     config.Push
	secure  *tls.Config
	timeout time.Duration // of making a connection

	dialing chan struct{} // holds one: whoever takes it may make a connection

	mu     sync.Mutex // guards what follows
	conn   *amqp.Connection
	idle   []*lane
	closed bool
}

var _ push.Target = (*Broker)(nil)

// lane is an AMQP channel that carries one message at a time, so that what comes back and
// what is confirmed are told apart.
type lane struct {
	conn     *amqp.Connection
	channel  *amqp.Channel
	returned chan amqp.Return
	closed   chan *amqp.Error
}

// OpenBroker checks cfg and makes the target. It does not connect.
func OpenBroker(cfg config.Push) (*Broker, error) {
	if u, err := url.Parse(cfg.URL); err != nil || u.Host == "" || u.User != nil || u.Fragment != "" || u.RawQuery != "" {
		return nil, fmt.Errorf("%w: url: want amqps://host/virtual-host, without user or password (put them into credentials_file)", ErrConfig)
	}
	secure, err := trusting(cfg.CAFile)
	if err != nil {
		return nil, err
	}
	b := &Broker{cfg: cfg, secure: secure, timeout: cmp.Or(cfg.Timeout, push.DefaultTimeout), dialing: make(chan struct{}, 1)}
	b.dialing <- struct{}{}
	if _, _, err := b.credentials(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrConfig, err)
	}
	return b, nil
}

// credentials reads the file anew, so that a password can be changed without a restart.
// Errors quote nothing of it.
func (b *Broker) credentials() (user, password string, err error) {
	if b.cfg.CredentialsFile == "" {
		return "guest", "guest", nil
	}
	f, err := os.Open(b.cfg.CredentialsFile)
	if err != nil {
		return "", "", fmt.Errorf("credentials_file: %w", err)
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, maxCredentials+1))
	if err != nil {
		return "", "", fmt.Errorf("credentials_file: %w", err)
	}
	user, password, ok := strings.Cut(strings.TrimSpace(string(raw)), ":")
	if !ok || user == "" || strings.ContainsAny(password, "\r\n") || len(raw) > maxCredentials {
		return "", "", fmt.Errorf("credentials_file %s: want user:password on one line", b.cfg.CredentialsFile)
	}
	return user, password, nil
}

// Push publishes one item and waits for the broker's confirmation.
func (b *Broker) Push(ctx context.Context, m push.Message) error {
	l, err := b.lane(ctx)
	if err != nil {
		return err
	}
	err = l.publish(ctx, b.cfg, m)
	if err == nil || errors.Is(err, errReturned) {
		b.mu.Lock()
		defer b.mu.Unlock()
		if l.conn == b.conn {
			b.idle = append(b.idle, l)
		}
		return err
	}
	if !l.channel.IsClosed() { // it may be stuck; what else is under way is sent again
		_ = l.conn.CloseDeadline(time.Now().Add(closeWithin))
	}
	return err
}

var errNotTaken = errors.New("the broker did not take it")

var errReturned = fmt.Errorf("%w: nobody's queue is bound there: the message came back; see exchange and routing_key", push.ErrMisconfigured)

func (l *lane) publish(ctx context.Context, cfg config.Push, m push.Message) error {
	confirmed, err := l.channel.PublishWithDeferredConfirmWithContext(ctx, cfg.Exchange, cfg.RoutingKey, true, false, amqp.Publishing{
		ContentType: "application/json", DeliveryMode: amqp.Persistent, MessageId: m.Key, AppId: "crossroads", Body: m.Body,
	})
	if err != nil {
		return l.why(err)
	}
	switch ok, err := confirmed.WaitContext(ctx); {
	case err != nil:
		return fmt.Errorf("no confirmation in time: %w", err)
	case !ok:
		return l.why(errNotTaken)
	}
	select {
	case <-l.returned: // it comes before the confirmation
		return errReturned
	default:
		return nil
	}
}

// why says why a channel was closed, if it was.
func (l *lane) why(err error) error {
	select {
	case cause := <-l.closed:
		if cause != nil {
			return judgeBroker(cause)
		}
	default:
	}
	return judgeBroker(err)
}

// lane gives a channel of the connection, which is made if there is none.
func (b *Broker) lane(ctx context.Context) (*lane, error) {
	b.mu.Lock()
	for len(b.idle) > 0 {
		l := b.idle[len(b.idle)-1]
		b.idle = b.idle[:len(b.idle)-1]
		if !l.channel.IsClosed() {
			b.mu.Unlock()
			return l, nil
		}
	}
	b.mu.Unlock()
	conn, err := b.connection(ctx)
	if err != nil {
		return nil, err
	}
	channel, err := conn.Channel()
	if err == nil {
		err = channel.Confirm(false)
	}
	if err != nil {
		return nil, judgeBroker(err)
	}
	return &lane{conn, channel, channel.NotifyReturn(make(chan amqp.Return, 1)), channel.NotifyClose(make(chan *amqp.Error, 1))}, nil
}

func (b *Broker) connection(ctx context.Context) (*amqp.Connection, error) {
	select {
	case <-b.dialing:
		defer func() { b.dialing <- struct{}{} }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	b.mu.Lock()
	conn, closed := b.conn, b.closed
	b.mu.Unlock()
	if closed {
		return nil, net.ErrClosed
	}
	if conn != nil && !conn.IsClosed() {
		return conn, nil
	}
	conn, err := b.dial(ctx)
	if err != nil {
		return nil, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		_ = conn.CloseDeadline(time.Now().Add(closeWithin))
		return nil, net.ErrClosed
	}
	b.conn, b.idle = conn, nil
	return conn, nil
}

// dial makes a connection; the end of ctx breaks it off.
func (b *Broker) dial(ctx context.Context) (*amqp.Connection, error) {
	user, password, err := b.credentials()
	if err != nil {
		return nil, err
	}
	begun := func() bool { return true }
	defer func() { begun() }()
	conn, err := amqp.DialConfig(b.cfg.URL, amqp.Config{
		SASL: []amqp.Authentication{&amqp.PlainAuth{Username: user, Password: password}}, Heartbeat: heartbeat,
		TLSClientConfig: b.secure.Clone(), Properties: amqp.Table{"product": "crossroads", "connection_name": b.cfg.Name},
		Dial: func(network, addr string) (net.Conn, error) {
			c, err := (&net.Dialer{Timeout: b.timeout}).DialContext(ctx, network, addr)
			if err != nil {
				return nil, err
			}
			begun = context.AfterFunc(ctx, func() { _ = c.Close() })
			return c, c.SetDeadline(time.Now().Add(b.timeout)) // of the handshakes
		},
	})
	if err != nil {
		if ctx.Err() != nil {
			return nil, fmt.Errorf("no connection in time: %w", ctx.Err())
		}
		return nil, judgeBroker(err)
	}
	return conn, nil
}

// judgeBroker says what an error means, without the broker's text.
func judgeBroker(err error) error {
	var refusal *amqp.Error
	switch {
	case errors.Is(err, errNotTaken):
		return err
	case !errors.As(err, &refusal):
		return unavailable(err)
	}
	switch refusal.Code {
	case amqp.AccessRefused, amqp.NotAllowed:
		return fmt.Errorf("%w: AMQP %d: see credentials_file, and what the user may do in this virtual host", push.ErrMisconfigured, refusal.Code)
	case amqp.NotFound:
		return fmt.Errorf("%w: AMQP %d: no such exchange; see exchange", push.ErrMisconfigured, refusal.Code)
	case amqp.ContentTooLarge, amqp.PreconditionFailed:
		return fmt.Errorf("%w: AMQP %d", push.ErrRefused, refusal.Code)
	}
	return fmt.Errorf("AMQP %d", refusal.Code)
}

// Close ends the connection, and what is under way over it.
func (b *Broker) Close() error {
	b.mu.Lock()
	conn := b.conn
	b.conn, b.idle, b.closed = nil, nil, true
	b.mu.Unlock()
	if conn == nil || conn.IsClosed() {
		return nil
	}
	if err := conn.CloseDeadline(time.Now().Add(closeWithin)); err != nil && !errors.Is(err, amqp.ErrClosed) {
		return judgeBroker(err)
	}
	return nil
}
