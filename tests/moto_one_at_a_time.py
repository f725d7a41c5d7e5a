"""moto's server at a free port, which it prints, serving one request at a time.

DynamoDB and Secrets Manager check a condition and write in one step. moto's own server does so in threads, between
which another write can come."""

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

server = make_server("127.0.0.1", 0, DomainDispatcherApplication(create_backend_app), threaded=False)
print(server.port, flush=True)
server.serve_forever()
