"""The group commit as it was once, wrong: the negative control of the fault tests, which must catch it."""

from mlpd.server.storage.database import Database


class OldGroupCommit(Database):
    """Goes on in autocommit when SQLite has rolled a group back, and dies of a RELEASE that fails."""

    def _write_to_the_end(self):
        with self._writer.connect() as connection:
            while group := self._next_group():
                answers = []
                try:
                    with connection.begin():
                        for request in group:
                            try:
                                with connection.begin_nested():
                                    answers.append((request.answer, request.work(connection)))
                            except Exception as error:  # noqa: BLE001
                                request.answer.set_exception(error)
                except Exception as error:  # noqa: BLE001
                    for answer, _ in answers:
                        answer.set_exception(error)
                else:
                    for answer, result in answers:
                        answer.set_result(result)
