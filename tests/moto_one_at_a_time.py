"""moto's server at the port that the first argument names, serving one request at a time.

DynamoDB and Secrets Manager check a condition and write in one step. moto's own server does so in threads, between
which another write can come."""

import sys

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import run_simple

run_simple("127.0.0.1", int(sys.argv[1]), DomainDispatcherApplication(create_backend_app), threaded=False)
