"""A database that is used for the first time, by many at once."""

import asyncio

from pipeline.stores import SqlStore


def test_a_new_file_may_be_opened_by_many_at_once(tmp_path):
    async def test():
        for k in range(40):
            stores = [SqlStore(f"sqlite:///{tmp_path}/{k}.db") for _ in range(8)]
            try:
                await asyncio.gather(*[store.orphans() for store in stores])
            finally:
                for store in stores:
                    await store.close()

    asyncio.run(asyncio.wait_for(test(), 60))
