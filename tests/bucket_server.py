"""A bucket on this machine: gcp-storage-emulator, and what of Google's storage it lacks.

python bucket_server.py PORT serves the bucket `runs` from memory until it is ended.
"""

import sys
from http import HTTPStatus

from gcp_storage_emulator import server
from gcp_storage_emulator.exceptions import NotFound
from gcp_storage_emulator.handlers import objects


def generation(request, storage, name):
    try:
        return storage.get_file_obj(request.params['bucket_name'], name)['generation']
    except NotFound:
        return '0'


def conditional(handler, name_of):
    """`handler`, but where the object is not of the generation that is asked for."""

    def handle(request, response, storage, *args):
        wanted = request.query.get('ifGenerationMatch')
        if wanted and wanted[0] != generation(request, storage, name_of(request)):
            response.status = HTTPStatus.PRECONDITION_FAILED
        else:
            handler(request, response, storage, *args)

    return handle


def with_generation(download):
    def handle(request, response, storage, *args):
        response['x-goog-generation'] = generation(request, storage, request.params['object_id'])
        download(request, response, storage, *args)

    return handle


def serve(port):
    objects.download = with_generation(objects.download)
    for _, methods in server.HANDLERS:
        if methods.get('POST') is objects.insert:
            methods['POST'] = conditional(objects.insert, lambda r: r.query['name'][0])
        if methods.get('DELETE') is objects.delete:
            methods['DELETE'] = conditional(objects.delete, lambda r: r.params['object_id'])
    server.create_server('127.0.0.1', port, in_memory=True, default_bucket='runs').run()


if __name__ == '__main__':
    serve(int(sys.argv[1]))
